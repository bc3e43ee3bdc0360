"""R2D2: recurrent replay distributed DQN (Kapturowski et al. 2019), used for meta-learning.

The agent adapts like RL²: the network sees its previous action and reward and whether an episode has just ended, and
its memory is kept through all episodes of a trial. Unlike RL² it learns action values, off-policy, from past trials.
The trial takes the role of the episode: targets extend across the ends of inner episodes, and the only terminal is the
end of the trial. The rows of the batch are the actors, each with its own ε.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor
from torch.profiler import record_function

from metarl.agents.r2d2.config import R2D2Config
from metarl.agents.r2d2.exploration import epsilon_greedy, ladder, mean_apex_epsilon
from metarl.agents.r2d2.losses import sequence_priority, td_loss
from metarl.agents.r2d2.network import QNetwork, R2D2Memory, R2D2Networks
from metarl.agents.r2d2.replay import Batch, Replay
from metarl.agents.r2d2.targets import n_step_double_targets, unscale
from metarl.core import rng
from metarl.core.agent import LearningAgent, at
from metarl.core.batch_env import Step
from metarl.core.family import Key, Task, TaskFamily
from metarl.core.rollout import Acted, Memory, Rollout, TrialProtocol
from metarl.core.tree import where
from metarl.core.units import inverse
from metarl.fast.adam import ClippedAdam
from metarl.fast.capture import Captured
from metarl.learning import ranks

METRICS = "value", "q", "td_error", "grad_norm"


class R2D2(LearningAgent, config=R2D2Config):
    """The agent; see the module's docstring. Evaluations are greedy by default; pass ``greedy=False`` to change it."""

    protocol = TrialProtocol(test_greedy=True)
    config: R2D2Config

    def __init__(
        self, config: R2D2Config, family: TaskFamily, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        """Make an untrained agent. Raises ValueError for actions that are not Discrete, and the errors of `Replay`."""
        self.config, self.family, self.device = config, family, torch.device(device)
        if not isinstance(family.action_space, spaces.Discrete):
            name = type(family).__name__
            raise ValueError(f"R2D2 needs Discrete actions, and those of {name} are {family.action_space}: choose RL2.")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = R2D2Networks(config, family).to(self.device)
        self.replay = Replay(config, family, self.device)
        self.ring = self.replay.ring
        self.optimizer = ClippedAdam(self.net.online.named_parameters(), at(config.lr, 0.0))
        self.key = rng.fold(rng.key(seed, self.device), 1)
        self.minibatch = Captured(self._descend, self.device, reduces=True)
        self.first_priority = Captured(self._priority, self.device)
        self.mean_epsilon = mean_apex_epsilon(config.epsilon, config.epsilon_alpha)
        self.updates = self.gradient_steps = 0

    @property
    def captured(self) -> dict[str, Captured]:
        return {"Minibatches": self.minibatch, "First priorities": self.first_priority}

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        online = self.net.online
        epsilon = torch.full((num_tasks,), self.mean_epsilon, device=self.device)
        return R2D2Memory(online.memory.initial(num_tasks, self.device), online.encoder.initial(num_tasks), epsilon)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        """Act ε-greedily, or greedily. Each row draws its place on the ladder of ε at the first step of the trial.

        A row's ε therefore does not depend on the number of rows or on the process that plays it. The first step
        itself, before the drawn ε takes effect, uses the mean ε of the ladder.
        """
        config, online = self.config, self.net.online
        with torch.no_grad():
            q, state, last_obs = online.step(step, memory.state, memory.last_obs)
            policy = epsilon_greedy(q, memory.epsilon)
            own = policy.mode() if greedy else policy.sample(key)
            value = q.amax(-1)
            value = (unscale(value) if config.value_rescaling else value) * online.encoder.reward_size
            place = rng.uniform(rng.fold(key, 1), 1).squeeze(-1)
            starts = step.prev_action < online.actions.first  # no previous action
            epsilon = torch.where(starts, ladder(place, config.epsilon, config.epsilon_alpha), memory.epsilon)
        acted = Acted(online.actions.to_family(own), policy.log_prob(own), value)
        return acted, R2D2Memory(state, last_obs, epsilon)

    def adapt(self, memory: Memory, rollout: Rollout) -> Memory:
        return memory  # the recurrent state has already adapted

    def update(self, trial: list[Rollout], progress: float = 0.0) -> dict[str, float]:
        (rollout,) = trial
        config, replay, online = self.config, self.replay, self.net.online
        lr, gamma = at(config.lr, progress), at(config.gamma, progress)
        self.optimizer.set_lr(lr)
        discount = torch.tensor(gamma, device=self.device)
        with record_function("metarl/replay"):
            self._keep(rollout, discount)
        sums, steps = torch.zeros(len(METRICS), device=self.device), 0
        while steps < config.updates_per_iteration and len(self.ring) >= config.learning_starts:
            key = rng.fold(rng.fold(self.key, self.updates), steps)
            drawn, mine = replay.draw(key, config.batch_size)
            batch = replay.batch(mine, drawn.weight[mine.order], online)
            metrics, priority = self.minibatch(batch, discount)
            replay.prioritise(drawn.entry, mine.order, priority)
            sums, steps, self.gradient_steps = sums + metrics, steps + 1, self.gradient_steps + 1
            if self.gradient_steps % config.target_network_frequency == 0:
                self.net.copy_to_target()
        self.updates += 1
        losses = dict(zip(METRICS, (sums / steps).tolist(), strict=True)) if steps else {}
        losses |= {"lr": lr, "gamma": gamma, "replayable": float(len(self.ring))}
        return {f"loss/{name}": value for name, value in losses.items()}

    def _keep(self, rollout: Rollout, gamma: Tensor) -> None:
        """Put the trials into the ring, with priorities from their TD errors, and update the running scales."""
        replay, encoder = self.replay, self.net.online.encoder
        entry, mine = replay.add(rollout, self.net.online)  # under the scales that the network acted with
        if self.config.norm_obs:
            encoder.follow(rollout.step.obs, rollout.mask, 1.0 / (self.updates + 1))
        encoder.follow_rewards(rollout.outcome.reward, rollout.mask)
        if self.config.priority_exponent == 0.0:  # all priorities are equal
            replay.prioritise(entry, mine.order, replay.lengths(mine))
            return
        found = []
        for part in torch.arange(len(mine.slot), device=self.device).split(self.config.batch_size):
            batch = replay.batch(type(mine)(*(x[part] for x in mine)), torch.ones_like(part), self.net.online)
            found.append(self.first_priority(batch, gamma))
        replay.prioritise(entry, mine.order, torch.cat(found))

    def _descend(self, batch: Batch, gamma: Tensor) -> tuple[Tensor, Tensor]:
        """Take one gradient step; return the values of `METRICS` and the sequences' new priorities ``(B,)``."""
        net, config = self.net, self.config
        net.online.zero_grad()
        value, target, mask = self._learned(batch, gamma)
        count = ranks.total(mask.sum())
        loss = td_loss(value, target, mask, batch.weight, count)
        loss.backward()
        error = (target - value).detach()
        means = [(x * mask).sum() / count.clamp_min(1.0) for x in (value.detach(), error.abs())]
        found = ranks.sum_gradients(net.online.parameters(), torch.stack([loss.detach(), *means]))
        grad_norm = self.optimizer.step(config.max_grad_norm)
        return torch.cat([found, grad_norm[None]]), sequence_priority(error, mask, config.priority_eta)

    @torch.no_grad()
    def _priority(self, batch: Batch, gamma: Tensor) -> Tensor:
        value, target, mask = self._learned(batch, gamma)
        return sequence_priority(target - value, mask, self.config.priority_eta)

    def _learned(self, batch: Batch, gamma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the values of the actions taken, their targets, and the mask: each ``(T, B)``."""
        net, config, length = self.net, self.config, self.replay.length
        q, of_target = self._values(batch)
        with torch.no_grad():
            reward = batch.reward * inverse(net.online.encoder.reward_size)
            target = n_step_double_targets(
                reward, batch.mask, q, of_target, gamma, config.n_step, config.value_rescaling
            )
        value = q.gather(-1, batch.action[..., None]).squeeze(-1)
        return value[:length], target[:length], batch.mask[:length]

    def _values(self, batch: Batch) -> list[Tensor]:
        """Return the online and the target network's values ``(L, B, A)`` for the sequences."""
        states = [
            None if self.replay.whole else self._burnt_in(net, batch) for net in (self.net.online, self.net.target)
        ]
        return self.net.values(batch.raw, states)

    @torch.no_grad()
    def _burnt_in(self, network: QNetwork, batch: Batch) -> Any:
        """Return the state of a network's memory before the sequences: the stored state after the burn-in."""
        state = network.after(batch.burn_in, batch.state) if len(batch.burn_in) else batch.state
        return where(batch.begins, network.memory.initial(len(batch.begins), self.device), state)

    @torch.no_grad()
    def memory_features(self, memory: R2D2Memory, step: Step) -> Mapping[str, Tensor]:
        return self.net.online.memory_features(step, memory.state, memory.last_obs)

    def state_dict(self) -> dict[str, Tensor]:
        return {
            **{f"net.{name}": value for name, value in self.net.state_dict().items()},
            **self.optimizer.state_dict(),
            # Like the optimiser's state, these are only for training. They belong to the trials in the ring.
            "optimizer.priorities": self.replay.priorities.powers,
            "optimizer.gradient_steps": torch.tensor(self.gradient_steps),
            "updates": torch.tensor(self.updates),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.net.load_state_dict({k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")})
        self.optimizer.load_state_dict(state)
        if "optimizer.priorities" in state:  # the state of an agent made only for acting has none
            self.replay.priorities.powers.copy_(state["optimizer.priorities"])
            self.gradient_steps = int(state["optimizer.gradient_steps"])
        self.updates = int(state["updates"])
