"""Recurrent soft actor-critic: a policy whose memory is the learning algorithm, trained on replayed trials.

The agent adapts like RL²: the policy sees its previous action and reward and whether an episode has just ended, and its
memory is kept through all episodes of a trial. Unlike RL² it learns off-policy (Ni et al. 2022, "Recurrent Model-Free
RL Can Be a Strong Baseline for Many POMDPs"): whole trials go into a ring, and every gradient step replays some of
them. Actor and critics have separate memories. The algorithms are SAC (Haarnoja et al. 2018), SAC-Discrete
(Christodoulou 2019) and TD3 (Fujimoto et al. 2018). Values extend across the ends of episodes; the only terminal is the
end of the trial.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch
from gymnasium import spaces
from torch import Tensor

from metarl.agents.recurrent_sac.acting import ActingSAC
from metarl.agents.recurrent_sac.config import RecurrentSACConfig
from metarl.agents.recurrent_sac.losses import actor_loss, critic_loss, soft_value, td_target, temperature_loss
from metarl.agents.recurrent_sac.network import Memory, SACNetwork, Seen, choices, play
from metarl.agents.recurrent_sac.replay import Batch, replayed
from metarl.core import rng
from metarl.core.agent import LearningAgent, at
from metarl.core.batch_env import Step
from metarl.core.family import Key, Task, TaskFamily
from metarl.core.rollout import Acted, Rollout, TrialProtocol
from metarl.core.tree import features, where
from metarl.fast.adam import ClippedAdam
from metarl.fast.capture import Captured
from metarl.learning import ranks
from metarl.learning.acting import check_fixed_size
from metarl.learning.encoder import scale_tasks
from metarl.learning.soft import Choices, Point, polyak
from metarl.learning.trial_ring import TrialRing

CRITIC_METRICS = "critic", "q", "critic_grad_norm"
ACTOR_METRICS = "actor", "entropy", "alpha", "actor_grad_norm"


class RecurrentSAC(LearningAgent, config=RecurrentSACConfig):
    """The agent; see the module's docstring."""

    protocol = TrialProtocol()
    config: RecurrentSACConfig

    def __init__(
        self, config: RecurrentSACConfig, family: TaskFamily, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        """Make an untrained agent. Raises ValueError for actions that the algorithm does not support."""
        self.config, self.family, self.device = config, family, torch.device(device)
        _check_actions(family, config.algorithm)
        tasks = features(scale_tasks(family))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = SACNetwork(config, family, tasks).to(self.device)
        self.optimizers = {name: ClippedAdam(group, 0.0) for name, group in self.net.groups().items()}
        self.ring = TrialRing(config.buffer_size, family)
        self.key = rng.fold(rng.key(seed, self.device), 1)
        self.gradient_steps = {
            learns: Captured(partial(self._descend, policy_learns=learns), self.device, reduces=True)
            for learns in (True, False)
        }
        self.updates = self.trials = 0
        # Whether to draw actions at random; a tensor, because a CUDA graph reads it.
        self.exploring = torch.tensor(config.learning_starts > 0, device=self.device)

    @property
    def captured(self) -> dict[str, Captured]:
        return {"Gradient steps": self.gradient_steps[True]}

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        return Memory(self.net.actor.history.memory.initial(num_tasks, self.device))

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        with torch.no_grad():
            encoder, actor = self.net.encoder, self.net.actor
            raw, _ = encoder.raw(step, encoder.initial(len(key)))
            seen, state = actor.history.step(raw, memory.state)
            chosen = play(actor.policy(seen), key, greedy, self.config.exploration_noise)
            if not greedy:  # the first trials act at random, so that the ring contains all kinds of actions
                random = self.net.random_action(step, key, self.config.random_repeat)
                chosen = where(self.exploring.expand(len(key)), random, chosen)
            action, log_prob = chosen
            # The critics have a memory of their own and are only needed in `update`, so the value is 0.
            return Acted(self.net.actions.to_family(action), log_prob, torch.zeros_like(log_prob)), Memory(state)

    def adapt(self, memory: Memory, rollout: Rollout) -> Memory:
        return memory  # the recurrent state has already adapted

    def update(self, trial: list[Rollout], progress: float = 0.0) -> dict[str, float]:
        (rollout,) = trial
        config = self.config
        self._keep(rollout)
        found: dict[str, list[Tensor]] = {name: [] for name in (*CRITIC_METRICS, *ACTOR_METRICS)}
        schedules = self._schedules(progress)
        for number in range(config.updates_per_iteration if self.trials >= config.learning_starts else 0):
            key = rng.fold(rng.fold(self.key, self.updates), number)
            batch, places = self._replay(rng.fold(key, 0))
            descend = self.gradient_steps[number % config.policy_frequency == 0]
            metrics = descend(batch, rng.fold(rng.fold(key, 1), places), rng.fold(key, 2), *schedules)
            for name, value in zip(found, metrics.unbind(), strict=False):
                found[name].append(value)
        self.updates += 1
        losses = {name: float(torch.stack(values).mean()) for name, values in found.items() if values}
        losses |= {"gamma": at(config.gamma, progress), "replayable": float(len(self.ring))}
        return {f"loss/{name}": value for name, value in losses.items()}

    def _keep(self, rollout: Rollout) -> None:
        """Put the trials into the ring, and update the running scales."""
        encoder, mask = self.net.encoder, rollout.mask
        self.ring.add(rollout)
        if self.config.norm_obs:
            encoder.follow(rollout.step.obs, mask, 1.0 / (self.updates + 1))
        encoder.follow_rewards(rollout.outcome.reward, mask)
        self.trials += ranks.shard(mask.shape[1]).every
        self.exploring.fill_(self.trials < self.config.learning_starts)

    def _schedules(self, progress: float) -> tuple[Tensor, Tensor]:
        """Set the learning rates; return the discount factor and the target entropy."""
        config, actions = self.config, self.net.actions
        rates = {"history": config.memory_lr, "actor.head": config.policy_lr, "critic.head": config.q_lr}
        for name, optimizer in self.optimizers.items():
            rate = next((rate for part, rate in rates.items() if part in name), config.alpha_lr)
            optimizer.set_lr(at(rate, progress))
        size = self.net.actor.size
        if actions.continuous:
            entropy = at(config.target_entropy, progress) * size
        else:
            entropy = at(config.target_entropy_share, progress) * math.log(size)
        both = [torch.tensor(x, device=self.device) for x in (at(config.gamma, progress), entropy)]
        return both[0], both[1]

    def _replay(self, key: Key) -> tuple[Batch, Tensor]:
        """Draw trials from the ring; return the steps to learn from, and the trials' places in the draw of all ranks.

        With ``chunk_length`` the steps are the same chunk of every trial, drawn by `key`.
        """
        config = self.config
        rollout, places = self.ring.sample(key, config.batch_size), self.ring.own_draws(key, config.batch_size)
        length = config.chunk_length or len(rollout.mask)
        chunks = -(-len(rollout.mask) // length)
        first = length * int(rng.integers(rng.fold(key, 1), 1, chunks)) if chunks > 1 else 0
        return replayed(self.net, rollout, first, length, config.burn_in, config.bootstrap_end), places

    def _descend(
        self, batch: Batch, keys: Tensor, subset: Key, gamma: Tensor, target_entropy: Tensor, policy_learns: bool
    ) -> Tensor:
        """Take one gradient step of the critics and, if `policy_learns`, also of policy and temperature.

        `keys` ``(B,)`` draw actions; the key `subset` draws the critics of the targets. All losses use the parameters
        before the step. Returns the values of `CRITIC_METRICS` and, if `policy_learns`, of `ACTOR_METRICS`.
        """
        net, config = self.net, self.config
        weight = batch.mask / ranks.total(batch.mask.sum()).clamp_min(1.0)
        alpha = net.log_alpha.exp().detach() if config.algorithm == "sac" else 0.0
        each = rng.fold(keys, torch.arange(len(batch.raw), device=self.device)[:, None])  # (T + 1, B)
        net.actor.requires_grad_(policy_learns)
        seen = net.see(batch.raw, batch.burn_in)
        now = choices(net.actor.policy(seen["actor"]), each)
        target = self._targets(batch, seen, now, each, subset, alpha, gamma)

        first_layer = net.critic.first_layer(seen["critic"], batch.task)[:-1]  # without the step after the last one
        values = net.critic.values(first_layer, batch.action if net.actions.continuous else None)
        q = net.taken(values, batch.action)
        loss = critic_loss(q, target, weight)
        found = [loss.detach(), (q.detach().mean(0) * weight).sum()]

        if policy_learns:
            now = now.until(-1)
            if net.actions.continuous:
                values = net.critic.values(first_layer.detach(), now.action, frozen=True)
            of_policy = actor_loss(self._followed(values), now, alpha, weight)
            entropy = now.entropy().detach()
            loss = loss + of_policy
            if config.algorithm == "sac":
                loss = loss + temperature_loss(net.log_alpha, entropy, target_entropy, weight)
            found += [of_policy.detach(), (entropy * weight).sum()]
        loss.backward()  # no two of the losses train the same parameters
        return self._step(torch.stack(found), policy_learns)

    @torch.no_grad()
    def _targets(
        self,
        batch: Batch,
        seen: Mapping[str, Seen],
        now: Choices,
        each: Tensor,
        subset: Key,
        alpha: Tensor | float,
        gamma: Tensor,
    ) -> Tensor:
        """Return the critics' targets ``(T, B)``, with the soft value of the next step by the lowest target critic.

        With TD3 the next action is the target policy's plus noise, which makes the value smooth in the action.
        """
        net, config = self.net, self.config
        if net.actor_target is not None:
            policy = net.actor_target.policy(seen["actor_target"])
            assert isinstance(policy, Point)
            now = policy.choices(policy.draw(each, config.policy_noise, config.noise_clip)[0])
        first_layer = net.critic_target.first_layer(seen["critic_target"], batch.task)
        values = net.critic_target.values(first_layer, now.action)
        if config.target_critics < config.num_critics:
            values = values[rng.permutation(subset, config.num_critics)[: config.target_critics]]
        value = soft_value(values.amin(0), now, alpha)
        return td_target(batch.reward, value[1:], batch.following, gamma)

    def _followed(self, values: Tensor) -> Tensor:
        """Reduce the values of all critics to the values ``(T, B, K)`` that the policy maximises."""
        if self.config.algorithm == "td3":
            return values[0]
        values = values if self.net.actions.continuous else values.detach()
        return values.amin(0) if self.config.num_critics == 2 else values.mean(0)

    def _step(self, metrics: Tensor, policy_learns: bool) -> Tensor:
        """Step along the gradients of all ranks and update the target networks; return all metrics."""
        net, config = self.net, self.config
        names = ["critic.history", "critic.head"]
        if policy_learns:
            names += ["actor.history", "actor.head", *(["log_alpha"] if config.algorithm == "sac" else [])]
        optimizers = [self.optimizers[name] for name in names]
        metrics = ranks.sum_gradients([p for each in optimizers for p in each.parameters], metrics)
        alpha = net.log_alpha.detach().exp()
        norms = [optimizer.step(config.max_grad_norm) for optimizer in optimizers]
        for optimizer in optimizers:
            optimizer.zero_grad()
        for target, online in net.targets():
            polyak(target.parameters(), online.parameters(), config.tau)
        of_critic, of_actor = metrics[:2], metrics[2:]
        complete = [of_critic, torch.hypot(norms[0], norms[1])[None]]
        if policy_learns:
            complete += [of_actor, alpha[None], torch.hypot(norms[2], norms[3])[None]]
        return torch.cat(complete)

    @torch.no_grad()
    def memory_features(self, memory: Memory, step: Step) -> Mapping[str, Tensor]:
        """Return the policy's memory; the critics' memory is used only in training."""
        encoder = self.net.encoder
        raw, _ = encoder.raw(step, encoder.initial(len(step.obs)))
        return self.net.actor.history.memory_features(raw, memory.state)

    def acting_module(self, memory: Memory) -> ActingSAC:
        check_fixed_size(self.title, self.config.memory, self.net.actor.history.memory)
        return ActingSAC(self.net)

    def state_dict(self) -> dict[str, Tensor]:
        found = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        for optimizer in self.optimizers.values():
            found |= optimizer.state_dict()
        return found | {"updates": torch.tensor(self.updates), "trials": torch.tensor(self.trials)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.net.load_state_dict({k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")})
        for optimizer in self.optimizers.values():
            optimizer.load_state_dict(state)
        self.updates, self.trials = int(state["updates"]), int(state["trials"])
        self.exploring.fill_(self.trials < self.config.learning_starts)


def _check_actions(family: TaskFamily, algorithm: str) -> None:
    """Raise ValueError for an action space that the algorithm does not support."""
    space, given = family.action_space, f"and those of {type(family).__name__} are {family.action_space}"
    if isinstance(space, spaces.Box):
        if not space.is_bounded():
            raise ValueError(f"RecurrentSAC needs actions with finite bounds, {given}: choose RL2.")
    elif not isinstance(space, spaces.Discrete):
        raise ValueError(f"RecurrentSAC needs Discrete or Box actions, {given}: choose RL2.")
    elif algorithm == "td3":
        raise ValueError(f"algorithm td3 needs Box actions, {given}: choose algorithm sac.")
