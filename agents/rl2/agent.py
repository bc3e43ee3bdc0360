"""RL²: a recurrent policy whose memory is the learning algorithm (Duan et al. 2016; Wang et al. 2016).

The policy sees its previous action, reward and the ends of episodes, and its memory lives through all episodes of a
trial. Trained by recurrent PPO (Schulman et al. 2017) to maximise the return of the *trial*, it learns to explore
first and to use what it found. A trial starts with an empty memory at its first step, so the update is one call over
``(T, B)``: no reset masks inside, minibatches over tasks, the trial's end the only terminal.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.profiler import record_function

from metarl.agents.rl2.config import RL2Config
from metarl.agents.rl2.network import RL2Memory, RL2Network
from metarl.core import rng
from metarl.core.agent import LearningAgent, at
from metarl.core.batch_env import Step
from metarl.core.family import Key, Task, TaskFamily
from metarl.core.rollout import Acted, Memory, Rollout, TrialProtocol
from metarl.core.tree import columns, features, split_columns, take
from metarl.core.units import ALIKE
from metarl.fast.adam import ClippedAdam
from metarl.fast.capture import Captured
from metarl.learning.estimators import explained_variance, follow, gae, masked_mean, normalise
from metarl.learning.losses import PPO_METRICS, ppo_loss

TOLD_TASKS = 512
"""Training tasks whose mean and spread are the scale of a task that the critic is told."""


class Batch(NamedTuple):
    """What the update needs of the steps of a trial, ``(T, B, …)``."""

    raw: Tensor  # the step as the encoder gives it before what is learned of it
    action: Tensor  # in the network's own units
    log_prob: Tensor  # of the policy that acted
    advantage: Tensor
    target: Tensor  # of the critic, in its own scale
    mask: Tensor


class RL2(LearningAgent, config=RL2Config):
    """The agent; see the module's docstring. Its memory is the state of ``config.memory``."""

    protocol = TrialProtocol()
    config: RL2Config

    def __init__(
        self, config: RL2Config, family: TaskFamily, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        self.config, self.family, self.device = config, family, torch.device(device)
        # The same whatever the seed: what is told is in the units of these tasks.
        task = family.sample_tasks(rng.key(0), TOLD_TASKS)
        # In the inference loss each field of a task weighs the same, however many numbers it has.
        sizes = [features((field,)).shape[1] for field in task]
        self.field_weights = torch.cat([torch.full((n,), 1.0 / (n * len(sizes))) for n in sizes]).to(self.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = RL2Network(config, family, features(task)).to(self.device)
        self.optimizer = ClippedAdam(self.net.named_parameters(), at(config.lr, 0.0))
        self.key = rng.fold(rng.key(seed, self.device), 1)
        self.minibatch = Captured(self._descend, self.device)
        self.metrics = [*PPO_METRICS, *(["inference"] if config.aux_coef else []), "grad_norm"]
        self.updates = 0
        # The critic predicts (return - mean) / std, so that vf_coef and lr mean the same for returns of any size.
        # Before the first returns every value is 0.
        self.return_mean = torch.zeros((), device=self.device)
        self.return_std = torch.zeros((), device=self.device)

    @property
    def captured(self) -> dict[str, Captured]:
        return {"Minibatches": self.minibatch}

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        return RL2Memory(self.net.memory.initial(num_tasks, self.device), self.net.encoder.initial(num_tasks))

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        with torch.no_grad():
            policy, value, memory = self.net.step(step, memory)
            action = self.net.actions.to_family(policy.mode() if greedy else policy.sample(key))
            log_prob = policy.log_prob(self.net.actions.to_own(action))  # as `update` will see it: rounded
            if self.config.critic == "task":  # the critic is asked in `update`, where the task is known
                return Acted(action, log_prob, torch.zeros_like(log_prob)), memory
            return Acted(action, log_prob, self._unscale(value)), memory

    def adapt(self, memory: Memory, rollout: Rollout) -> Memory:
        return memory  # the carried state did the learning

    def update(self, trial: list[Rollout], progress: float = 0.0) -> dict[str, float]:
        (rollout,) = trial
        config = self.config
        lr, gamma, ent_coef = (at(schedule, progress) for schedule in (config.lr, config.gamma, config.ent_coef))
        task = features(rollout.task)
        with record_function("metarl/advantage"):
            batch, metrics = self._prepare(rollout, task, gamma)
        self.optimizer.set_lr(lr)
        entropy_weight = torch.tensor(ent_coef, device=self.device)
        keys = rng.fold(rng.fold(self.key, self.updates), torch.arange(config.update_epochs, device=self.device))
        sums, epochs = torch.zeros(len(self.metrics), device=self.device), 0
        for order in rng.permutation(keys, len(task)):
            before = sums
            parts = split_columns(columns(batch, order), config.num_minibatches)
            for part, tasks in zip(parts, task[order].tensor_split(config.num_minibatches), strict=True):
                sums = sums + self.minibatch(part, tasks, entropy_weight)
            epochs += 1
            approx_kl = (sums - before)[self.metrics.index("approx_kl")] / config.num_minibatches
            if config.target_kl is not None and float(approx_kl) > 1.5 * config.target_kl:
                break
        self.updates += 1
        means = (sums / (epochs * config.num_minibatches)).tolist()
        losses = dict(zip(self.metrics, means, strict=True)) | {name: float(value) for name, value in metrics.items()}
        losses |= {"lr": lr, "gamma": gamma, "epochs": float(epochs)}
        return {f"loss/{name}": value for name, value in losses.items()}

    def _prepare(self, rollout: Rollout, task: Tensor, gamma: float) -> tuple[Batch, dict[str, Tensor]]:
        """Advantages and targets, and the steps as the network sees them.

        What follows a row's last step counts for nothing; no other end is one.
        """
        config, mask, encoder = self.config, rollout.mask, self.net.encoder
        value = rollout.acted.value
        if config.critic == "task":
            value = self._unscale(self._told_values(rollout.step, task))
        following = torch.cat([mask[1:], torch.zeros_like(mask[:1])])
        reward = rollout.outcome.reward * mask
        advantage = gae(reward, value, 1.0 - following, torch.zeros_like(mask[0]), gamma, config.gae_lambda) * mask
        target = advantage + value
        metrics = {
            "explained_variance": explained_variance(value, target, mask),
            "advantage_std": masked_mean(advantage**2, mask).sqrt(),
        }
        # What the critic says of returns grows with them. To correct its last layer so that it does not (PopArt, van
        # Hasselt et al. 2016) was worse where returns rise, that is while a policy learns (docs/findings.md, 18).
        follow(self.return_mean, self.return_std, target, mask, weight=max(0.05, 1.0 / (self.updates + 1)))
        target = (target - self.return_mean) / torch.where(self.return_std > 0.0, self.return_std, 1.0)
        if config.norm_adv:
            advantage = normalise(advantage, mask)
        else:
            advantage = encoder.in_reward_sizes(advantage, reward, mask)
        raw, _ = encoder.raw(rollout.step, encoder.initial(mask.shape[1]))
        action = self.net.actions.to_own(rollout.acted.action)
        # Only now: the scales with which the policy acted are those with which its ratio to itself is 1.
        if config.norm_obs:
            encoder.follow(rollout.step.obs, mask, 1.0 / (self.updates + 1))
        encoder.follow_rewards(rollout.outcome.reward, mask)
        return Batch(raw, action, rollout.acted.log_prob, advantage, target, mask), metrics

    @torch.no_grad()
    def _told_values(self, step: Step, task: Tensor) -> Tensor:
        """What the critic says ``(T, B)`` when the task is known; with no more in memory than a minibatch needs."""
        config, encoder = self.config, self.net.encoder
        raw, _ = encoder.raw(step, encoder.initial(len(task)))
        length, values = config.chunk_length or len(raw), []
        parts = raw.tensor_split(config.num_minibatches, dim=1), task.tensor_split(config.num_minibatches)
        for part, tasks in zip(*parts, strict=True):
            state, times = None, []
            for chunk in part.split(length):
                output, x, state = self.net.sequence(chunk, state)
                times.append(self.net.heads(output, x, tasks)[1])
            values.append(torch.cat(times))
        return torch.cat(values, dim=1)

    def _descend(self, batch: Batch, task: Tensor, ent_coef: Tensor) -> Tensor:
        """Take one step of Adam on a minibatch, whose trials are back-propagated chunk by chunk.

        Returns the numbers of `self.metrics`.
        """
        config, net = self.config, self.net
        weight = batch.mask / batch.mask.sum()
        length, steps = config.chunk_length or len(weight), len(weight)
        state, metrics = None, []
        self.net.zero_grad()
        for start in range(0, steps, length):
            chunk = take(batch, slice(start, start + length)) if length < steps else batch
            each = weight[start : start + length]
            output, x, state = net.sequence(chunk.raw, state)
            policy, value = net.heads(output, x, task)
            loss, found = ppo_loss(
                value, policy, chunk.action, chunk.log_prob, chunk.advantage, chunk.target, each,
                clip_coef=config.clip_coef, vf_coef=config.vf_coef, ent_coef=ent_coef,
            )  # fmt: skip
            if net.infer is not None:
                inference = self._inference_loss(output, task, chunk.mask) * each.sum()
                loss = loss + config.aux_coef * inference
                found = torch.cat([found, inference.detach()[None]])
            loss.backward()
            metrics.append(found)
        grad_norm = self.optimizer.step(config.max_grad_norm)
        return torch.cat([sum(metrics[1:], metrics[0]), grad_norm[None]])

    def _inference_loss(self, output: Tensor, task: Tensor, mask: Tensor) -> Tensor:
        """Mean squared error of the task as read off the memory: 1 knows nothing, 0 all. About ten steps are asked."""
        assert self.net.infer is not None
        stride = max(1, mask.shape[0] // 10)
        asked, mask = output[stride - 1 :: stride], mask[stride - 1 :: stride]
        std = task.std(0, correction=0)
        varies = std > ALIKE * task.abs().amax(0)
        truth = (task - task.mean(0)) / torch.where(varies, std, 1.0)
        error = (self.net.infer(asked) - truth) ** 2 * varies
        return masked_mean(error @ self.field_weights, mask)

    def _unscale(self, value: Tensor) -> Tensor:
        return value * self.return_std + self.return_mean

    def state_dict(self) -> dict[str, Tensor]:
        return {
            **{f"net.{name}": value for name, value in self.net.state_dict().items()},
            **self.optimizer.state_dict(),
            "return_mean": self.return_mean,
            "return_std": self.return_std,
            "updates": torch.tensor(self.updates),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.net.load_state_dict({k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")})
        self.optimizer.load_state_dict(state)
        self.return_mean.copy_(state["return_mean"])
        self.return_std.copy_(state["return_std"])
        self.updates = int(state["updates"])
