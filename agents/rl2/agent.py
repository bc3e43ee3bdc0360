"""RL²: a recurrent policy whose memory is the learning algorithm (Duan et al. 2016; Wang et al. 2016).

At each step the policy sees its previous action and reward and whether an episode has just ended. Its memory is kept
through all episodes of a trial. Recurrent PPO (Schulman et al. 2017) maximises the return of the *trial*, so the policy
learns to explore first and then to exploit what it found. Every trial starts with an empty memory at its first step.
The update is therefore a single call over ``(T, B)``: it needs no reset masks, its minibatches are over tasks, and the
only terminal is the end of the trial.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.profiler import record_function

from metarl.agents.rl2.acting import ActingRL2
from metarl.agents.rl2.config import RL2Config
from metarl.agents.rl2.network import RL2Network
from metarl.core import rng
from metarl.core.agent import LearningAgent, at
from metarl.core.batch_env import Step
from metarl.core.distributions import Distribution
from metarl.core.family import Key, Task, TaskFamily
from metarl.core.rollout import Acted, Memory, Rollout, TrialProtocol
from metarl.core.tree import columns, features, take
from metarl.core.units import ALIKE
from metarl.fast.adam import ClippedAdam
from metarl.fast.capture import Captured
from metarl.learning import ranks
from metarl.learning.acting import check_fixed_size
from metarl.learning.encoder import scale_tasks
from metarl.learning.estimators import (
    explained_variance,
    follow,
    gae,
    meta_batch_mean,
    normalise,
    share_of_trial,
    time_in_trial,
)
from metarl.learning.losses import PPO_METRICS, ppo_loss


class Batch(NamedTuple):
    """The steps of a trial as the update uses them; every tensor is ``(T, B, …)``."""

    raw: Tensor  # (T, B, F) the encoded steps, before the learned embedding
    action: Tensor  # (T, B) or (T, B, A) in the network's own units
    log_prob: Tensor  # (T, B) under the policy that acted
    advantage: Tensor  # (T, B)
    target: Tensor  # (T, B) the critic's target, standardised like its output
    share: Tensor  # (T, B) the fraction of the trial that is over
    mask: Tensor  # (T, B) 0 for padding


class RL2(LearningAgent, config=RL2Config):
    """The agent; see the module's docstring. Its memory is the state of ``config.memory``."""

    protocol = TrialProtocol()
    config: RL2Config

    def __init__(
        self, config: RL2Config, family: TaskFamily, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        self.config, self.family, self.device = config, family, torch.device(device)
        task = scale_tasks(family)
        # The inference loss weighs all fields of a task equally, whatever their sizes.
        sizes = [features((field,)).shape[1] for field in task]
        self.field_weights = torch.cat([torch.full((n,), 1.0 / (n * len(sizes))) for n in sizes]).to(self.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = RL2Network(config, family, features(task)).to(self.device)
        self.optimizer = ClippedAdam(self.net.named_parameters(), at(config.lr, 0.0))
        self.key = rng.fold(rng.key(seed, self.device), 1)
        self.minibatch = Captured(self._descend, self.device, reduces=True)
        self.metrics = [*PPO_METRICS, *(["inference"] if config.aux_coef else []), "grad_norm"]
        self.updates = 0
        # The critic predicts (return - mean) / std, so that vf_coef and lr mean the same for returns of any size.
        # With std = 0, before the first update, every value is 0.
        self.return_mean = torch.zeros((), device=self.device)
        self.return_std = torch.zeros((), device=self.device)

    @property
    def values(self) -> Callable[[Rollout], Tensor]:
        return lambda rollout: self._values(rollout, features(rollout.task))

    @property
    def captured(self) -> dict[str, Captured]:
        return {"Minibatches": self.minibatch}

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        return self.net.initial(num_tasks, self.device)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        with torch.no_grad():
            policy, value, memory = self.net.step(step, memory)
            action = self.net.actions.to_family(policy.mode() if greedy else policy.sample(key))
            log_prob = policy.log_prob(self.net.actions.to_own(action))  # of the rounded action, as in `update`
            if self.config.critic != "history":  # `update` computes the values, because it knows the task
                return Acted(action, log_prob, torch.zeros_like(log_prob)), memory
            return Acted(action, log_prob, self._unscale(value)), memory

    def adapt(self, memory: Memory, rollout: Rollout) -> Memory:
        return memory  # the recurrent state has already adapted

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
        sums, epochs, shard = torch.zeros(len(self.metrics), device=self.device), 0, ranks.shard(len(task))
        for order in rng.permutation(keys, shard.every):
            before = sums
            for minibatch in order.tensor_split(config.num_minibatches):
                rows = shard.own(minibatch, len(task))
                sums = sums + self.minibatch(columns(batch, rows), task[rows], entropy_weight)
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
        """Return the batch for the update, with advantages and targets, and metrics of both.

        The value after a row's last step of the trial is 0. Episode ends inside the trial are not terminals.
        """
        config, mask, encoder = self.config, rollout.mask, self.net.encoder
        value, share = self._values(rollout, task), self._share(rollout.step)
        following = torch.cat([mask[1:], torch.zeros_like(mask[:1])])
        reward = rollout.outcome.reward * mask
        advantage = gae(reward, value, 1.0 - following, torch.zeros_like(mask[0]), gamma, config.gae_lambda) * mask
        target = advantage + value
        metrics = {
            "explained_variance": explained_variance(value, target, mask),
            "advantage_std": meta_batch_mean(advantage**2, mask).sqrt(),
        }
        # A change of the running mean and standard deviation also changes the returns that the critic predicts. PopArt
        # (van Hasselt et al. 2016) would correct the last layer for that, but with PopArt one seed of three failed to
        # train on CartPole (docs/findings.md, 18).
        follow(self.return_mean, self.return_std, target, mask, weight=max(0.05, 1.0 / (self.updates + 1)))
        target = (target - self.return_mean) / torch.where(self.return_std > 0.0, self.return_std, 1.0)
        if config.norm_adv:
            advantage = normalise(advantage, mask)
        else:
            advantage = encoder.in_reward_sizes(advantage, reward, mask)
        raw, _ = encoder.raw(rollout.step, encoder.initial(mask.shape[1]))
        action = self.net.actions.to_own(rollout.acted.action)
        # Update the scales only after `raw`: the likelihood ratio is 1 under the scales that the policy acted with.
        if config.norm_obs:
            encoder.follow(rollout.step.obs, mask, 1.0 / (self.updates + 1))
        encoder.follow_rewards(rollout.outcome.reward, mask)
        return Batch(raw, action, rollout.acted.log_prob, advantage, target, share, mask), metrics

    def _values(self, rollout: Rollout, task: Tensor) -> Tensor:
        """Return the critic's values ``(T, B)`` before each step."""
        if self.config.critic == "history":
            return rollout.acted.value
        return self._unscale(self._told_values(rollout.step, task))

    def _share(self, step: Step) -> Tensor:
        """Return the fraction of the trial that is over before each step, ``(T, B)``."""
        episodes, since = time_in_trial(step.prev_done)
        return share_of_trial(episodes, since, self.family.horizon, self.family.episodes_per_trial)

    @torch.no_grad()
    def _told_values(self, step: Step, task: Tensor) -> Tensor:
        """Return the values ``(T, B)`` of a critic that sees the task, computed in parts to save memory."""
        config, encoder = self.config, self.net.encoder
        raw, _ = encoder.raw(step, encoder.initial(len(task)))
        length, values = config.chunk_length or len(raw), []
        parts = [each.tensor_split(config.num_minibatches, dim=1) for each in (raw, self._share(step))]
        for part, shares, tasks in zip(*parts, task.tensor_split(config.num_minibatches), strict=True):
            state, times = None, []
            for chunk, share in zip(part.split(length), shares.split(length), strict=True):
                output, x, state = self.net.sequence(chunk, state)
                times.append(self.net.heads(output, x, tasks, share)[1])
            values.append(torch.cat(times))
        return torch.cat(values, dim=1)

    def _descend(self, batch: Batch, task: Tensor, ent_coef: Tensor) -> Tensor:
        """Take one step of Adam on a minibatch, with backpropagation through time truncated to `chunk_length`.

        `task` ``(B, D)`` holds the tasks as vectors. Returns the values of `self.metrics`, in that order.
        """
        config, net = self.config, self.net
        weight = batch.mask / ranks.total(batch.mask.sum())
        length, steps = config.chunk_length or len(weight), len(weight)
        state, metrics = None, []
        self.net.zero_grad()
        for start in range(0, steps, length):
            chunk = take(batch, slice(start, start + length)) if length < steps else batch
            each = weight[start : start + length]
            output, x, state = net.sequence(chunk.raw, state)
            policy, value = net.heads(output, x, task, chunk.share)
            loss, found = ppo_loss(
                value, policy, chunk.action, chunk.log_prob, chunk.advantage, chunk.target, each,
                clip_coef=config.clip_coef, vf_coef=config.vf_coef, ent_coef=ent_coef,
            )  # fmt: skip
            if net.infer is not None:
                inference = self._inference_loss(output, task, chunk.mask) * ranks.total(each.sum())
                loss = loss + config.aux_coef * inference
                found = torch.cat([found, inference.detach()[None]])
            loss.backward()
            metrics.append(found)
        found = ranks.sum_gradients(net.parameters(), sum(metrics[1:], metrics[0]))
        grad_norm = self.optimizer.step(config.max_grad_norm)
        return torch.cat([found, grad_norm[None]])

    def _inference_loss(self, output: Tensor, task: Tensor, mask: Tensor) -> Tensor:
        """Return the mean squared error of predicting the standardised task from the memory, at about ten steps.

        Predicting the mean task gives 1, predicting the true task gives 0 (Humplik et al. 2019).
        """
        assert self.net.infer is not None
        stride = max(1, mask.shape[0] // 10)
        asked, mask = output[stride - 1 :: stride], mask[stride - 1 :: stride]
        mean, std = ranks.moments(task.mean(0), task.std(0, correction=0), len(task))
        varies = std > ALIKE * mean.abs()
        truth = (task - mean) / torch.where(varies, std, 1.0)
        error = (self.net.infer(asked) - truth) ** 2 * varies
        return (error @ self.field_weights * mask).sum() / ranks.total(mask.sum()).clamp_min(1.0)

    def _unscale(self, value: Tensor) -> Tensor:
        return value * self.return_std + self.return_mean

    @torch.no_grad()
    def memory_features(self, memory: Memory, step: Step) -> Mapping[str, Tensor]:
        return self.net.memory_features(step, memory)

    @torch.no_grad()
    def action_distribution(self, memory: Memory, step: Step) -> Distribution:
        return self.net.step(step, memory)[0]

    def acting_module(self, memory: Memory) -> ActingRL2:
        check_fixed_size(self.title, self.config.memory, self.net.memory)
        return ActingRL2(self.net)

    def state_dict(self) -> dict[str, Tensor]:
        return {
            **{f"net.{name}": value for name, value in self.net.state_dict().items()},
            **self.optimizer.state_dict(),
            "return_mean": self.return_mean,
            "return_std": self.return_std,
            "updates": torch.tensor(self.updates),
        }

    def starting_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keep the own critic, with its scale, if the other one is told something else or is not trained (a student's).

        Keep the own inference head if the other agent has none, and leave out one that this agent does not have.
        """
        own = self.state_dict()
        parts = {
            ("net.critic.", "return_"): ("net.critic.of_task", "net.critic.of_time", "return_"),
            ("net.infer.",): ("net.infer.",),
        }  # what is kept together, and the optional parts of it
        for names, optional in parts.items():
            if any(_has(own, part) != _has(state, part) for part in optional):
                state = {name: value for name, value in state.items() if not name.startswith(names)}
                state |= {name: value for name, value in own.items() if name.startswith(names)}
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.net.load_state_dict({k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")})
        self.optimizer.load_state_dict(state)
        self.return_mean.copy_(state["return_mean"])
        self.return_std.copy_(state["return_std"])
        self.updates = int(state["updates"])


def _has(state: dict[str, Tensor], part: str) -> bool:
    return any(name.startswith(part) for name in state)
