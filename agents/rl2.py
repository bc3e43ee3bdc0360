"""RL²: a recurrent policy whose memory is the learning algorithm (Duan et al. 2016; Wang et al. 2016).

The policy sees its previous action, reward and the ends of episodes, and its memory lives through all episodes of a
trial. Trained by recurrent PPO (Schulman et al. 2017) to maximise the return of the *trial*, it learns to explore
first and to use what it found. A trial starts with an empty memory at its first step, so the update is one call over
``(T, B)``: no reset masks inside, minibatches over tasks, the trial's end the only terminal.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarl import rng
from metarl.agent import AgentConfig, ClippedAdam, LearningAgent, Schedule, at
from metarl.agents.rl2_network import RL2Memory, RL2Network
from metarl.batch_env import Step
from metarl.capture import Captured
from metarl.estimators import ALIKE, explained_variance, gae, masked_mean, normalise, spread
from metarl.family import Key, Task, TaskFamily, features
from metarl.memories import MEMORIES
from metarl.profiling import phase, record_function
from metarl.ranges import NOT_NEGATIVE, POSITIVE, POSITIVE_FINITE, at_least, one_of, option, within
from metarl.rollout import Acted, Memory, Rollout, TrialProtocol
from metarl.surrogate import PPO_METRICS, Sample, ppo_gradient


@dataclass
class RL2Config(AgentConfig):
    """RL² with recurrent PPO. A schedule is a number or points [[progress, value], …] joined by straight lines."""

    memory: str = option("gru", one_of(*MEMORIES))
    """gru, lstm, rnn, transformer, fast_weights; none: no memory beyond the last step, which is seen; or reactive: the
    observation alone is seen, no previous action, reward or end, so that nothing at all is remembered."""
    hidden_size: int = option(128, at_least(1))
    """Units of the memory."""
    transition_input: bool = False
    """Whether the policy also sees the observation before its previous action: the last step in one input."""
    embed_size: int = option(0, at_least(0))
    """ReLU units between the inputs and the memory; 0: the memory reads the inputs as they are."""
    head_size: int = option(0, at_least(0))
    """Hidden ReLU units of the policy's and the critic's head; 0: linear heads."""
    critic: str = option("history", one_of("history", "task"))
    """What the critic sees beside the memory: history (nothing more), or task (the true task, as in asymmetric
    actor-critic, Pinto et al. 2018: less variance, no bias; the policy never sees it, and acting does not need it)."""
    aux_coef: float = option(0.0, NOT_NEGATIVE)
    """Weight of an auxiliary loss: a linear layer reads the (standardised) task off the memory (task inference, Humplik
    et al. 2019). It teaches the memory what to remember; used in training alone. 0: none."""
    lr: Schedule = option(1e-3, within(0, 1))
    """Adam's learning rate."""
    gamma: Schedule = option(0.99, within(0, 1))
    """Discount. Starting short and lengthening it during training makes long trials learnable."""
    gae_lambda: float = option(0.95, within(0, 1))
    """Bias against variance of the advantage estimates."""
    update_epochs: int = option(4, at_least(1))
    """Passes over the batch per iteration."""
    num_minibatches: int = option(4, at_least(1))
    """Parts of a pass; each holds whole trials of some of the tasks."""
    clip_coef: float = option(0.2, POSITIVE)
    """PPO's clipping range of the likelihood ratio."""
    ent_coef: Schedule = option(0.01, within(0, 100))
    """Weight of the entropy bonus."""
    vf_coef: float = option(0.5, NOT_NEGATIVE)
    """Weight of the critic's squared error (of returns scaled to standard deviation 1)."""
    max_grad_norm: float = option(0.5, POSITIVE)
    """The gradient is scaled down to at most this norm."""
    target_kl: float | None = option(None, POSITIVE)
    """No further passes in an iteration once the approximate KL from the acting policy exceeds 1.5 times this."""
    norm_adv: bool = True
    """Scale the advantages of an iteration to mean 0 and standard deviation 1; if not, they are in units of the
    rewards' running size."""
    chunk_length: int | None = option(None, at_least(1))
    """Back-propagate through this many steps at a time (memory of long trials); None: through the whole trial."""
    norm_obs: bool = False
    """Scale observations by the mean and standard deviation of those seen so far, not by the space's bounds."""
    init_std: float = option(0.6, POSITIVE_FINITE)
    """Initial standard deviation of continuous actions, in units of half the action range."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory == "reactive" and self.transition_input:
            raise ValueError("memory: reactive sees the observation alone: it goes with transition_input false.")
        if self.num_minibatches > self.meta_batch_size:
            raise ValueError(
                f"num_minibatches must not exceed meta_batch_size = {self.meta_batch_size}, got {self.num_minibatches}."
            )

    def build(self, family: TaskFamily, seed: int, device: torch.device) -> RL2:
        return RL2(self, family, seed, device)


TOLD_TASKS = 512
"""Training tasks whose mean and spread are the scale of a task that the critic is told."""


class Batch(NamedTuple):
    """What the update needs of each step, ``(T, B, …)``."""

    raw: Tensor  # the step as the encoder gives it before what is learned of it
    sample: Sample  # its targets in the critic's own scale


class RL2(LearningAgent):
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
        self._saved_optimizer: dict[str, Tensor] = {}
        self.key = rng.fold(rng.key(seed, self.device), 1)
        self.minibatch = Captured(self._descend, self.device)
        self.metrics = [*PPO_METRICS, *(["inference"] if config.aux_coef else []), "grad_norm"]
        self.updates = 0
        # The critic predicts (return - mean) / std, so that vf_coef and lr mean the same for returns of any size.
        # Before the first returns every value is 0.
        self.return_mean = torch.zeros((), device=self.device)
        self.return_std = torch.zeros((), device=self.device)

    @cached_property
    def optimizer(self) -> ClippedAdam:
        """Adam, made when it is first needed: acting does without its moments."""
        adam = ClippedAdam(self.net.named_parameters(), at(self.config.lr, 0.0))
        adam.load_state_dict(self._saved_optimizer)
        return adam

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        return RL2Memory(self.net.memory.initial(num_tasks, self.device), self.net.encoder.initial(num_tasks))

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        with torch.no_grad():
            total, memory = self.net.step(step, memory)
            parameters, value = self.net.heads(total, None)
            distribution = self.net.distribution(*parameters)
            action = self.net.actions.to_family(distribution.mode() if greedy else distribution.sample(key))
            log_prob = distribution.log_prob(self.net.actions.to_own(action))  # as `update` will see it: rounded
            if self.config.critic == "task":  # the critic is asked in `update`, where the task is known
                return Acted(action, log_prob, torch.zeros_like(log_prob)), memory
            return Acted(action, log_prob, self._unscale(value)), memory

    def adapt(self, memory: Memory, rollout: Rollout) -> Memory:
        return memory  # the carried state did the learning

    def update(self, trial: list[Rollout], progress: float = 0.0) -> dict[str, float]:
        (rollout,) = trial
        config = self.config
        task = self.net.told(features(rollout.task))
        with record_function(phase("advantage")):
            batch, metrics = self._prepare(rollout, task, at(config.gamma, progress))
        self.optimizer.set_lr(at(config.lr, progress))
        ent_coef = torch.tensor(at(config.ent_coef, progress), device=self.device)
        sums = torch.zeros(len(self.metrics), device=self.device)
        epochs = 0
        keys = rng.fold(rng.fold(self.key, self.updates), torch.arange(config.update_epochs, device=self.device))
        for order in rng.permutation(keys, len(task)):
            before = sums
            parts = _parts(_columns(batch, order), config.num_minibatches)
            for part, tasks in zip(parts, task[order].tensor_split(config.num_minibatches), strict=True):
                sums = sums + self.minibatch(part, tasks, ent_coef)
            epochs += 1
            kl = (sums - before)[self.metrics.index("approx_kl")] / config.num_minibatches
            if config.target_kl is not None and float(kl) > 1.5 * config.target_kl:
                break
        if config.norm_obs:  # only now: the policy that acted must be the one whose ratio to itself is 1
            self.net.encoder.follow(rollout.step.obs, rollout.mask, 1.0 / (self.updates + 1))
        self.net.encoder.follow_rewards(rollout.outcome.reward, rollout.mask)
        self.updates += 1
        means = (sums / (epochs * config.num_minibatches)).tolist()
        losses = {f"loss/{name}": mean for name, mean in zip(self.metrics, means, strict=True)}
        schedule = {"loss/lr": at(config.lr, progress), "loss/gamma": at(config.gamma, progress)}
        found = {name: float(value) for name, value in metrics.items()}
        return found | losses | schedule | {"loss/epochs": float(epochs)}

    def _prepare(self, rollout: Rollout, task: Tensor, gamma: float) -> tuple[Batch, dict[str, Tensor]]:
        """Advantages and targets. What follows a row's last step counts for nothing; no other end is one."""
        mask = rollout.mask
        value = rollout.acted.value
        if self.config.critic == "task":
            value = self._unscale(self._told_values(rollout.step, task))
        following = torch.cat([mask[1:], torch.zeros_like(mask[:1])])
        reward = rollout.outcome.reward * mask
        advantage = gae(reward, value, 1.0 - following, torch.zeros_like(mask[0]), gamma, self.config.gae_lambda) * mask
        target = advantage + value
        metrics = {
            "loss/explained_variance": explained_variance(value, target, mask),
            "loss/advantage_std": masked_mean(advantage**2, mask).sqrt(),
        }
        self._track_returns(target, mask)
        target = (target - self.return_mean) / torch.where(self.return_std > 0.0, self.return_std, 1.0)
        if self.config.norm_adv:
            advantage = normalise(advantage, mask)
        else:
            advantage = self.net.encoder.in_reward_sizes(advantage, reward, mask)
        raw, _ = self.net.encoder.raw(rollout.step, self.net.encoder.initial(mask.shape[1]))
        action = self.net.actions.to_own(rollout.acted.action)
        sample = Sample(action, rollout.acted.log_prob, advantage, target, mask)
        return Batch(raw, sample), metrics

    @torch.no_grad()
    def _told_values(self, step: Step, task: Tensor) -> Tensor:
        """What the critic says ``(T, B)`` when the task is known; with no more in memory than a minibatch needs."""
        config, steps = self.config, len(step.prev_done)
        length, values = config.chunk_length or steps, []
        parts = zip(_parts(step, config.num_minibatches), task.tensor_split(config.num_minibatches), strict=True)
        for part, tasks in parts:
            memory, times = self.begin(len(tasks)), []
            for start in range(0, steps, length):
                _, total, memory = self.net(_slice(part, start, start + length), memory)
                times.append(self.net.heads(total, tasks)[1])
            values.append(torch.cat(times))
        return torch.cat(values, dim=1)

    def _descend(self, batch: Batch, task: Tensor, ent_coef: Tensor) -> Tensor:
        """One step of Adam on a minibatch, whose trials are back-propagated chunk by chunk. Returns `self.metrics`."""
        config, net = self.config, self.net
        steps = len(batch.raw)
        length = config.chunk_length or steps
        weight = batch.sample.mask / batch.sample.mask.sum()
        state = None
        self.optimizer.zero_grad()
        metrics = []
        for start in range(0, steps, length):
            raw, sample = _slice(batch, start, start + length) if length < steps else batch
            each = weight[start : start + length]
            output, total, state = net.sequence(raw, state)
            parameters, value = net.heads(total, task)
            found, gradients = ppo_gradient(
                net.distribution, parameters, value, sample, each, config.clip_coef, config.vf_coef, ent_coef
            )
            roots = [value, *parameters]
            if net.infer is not None:
                inference = self._inference_loss(output, task, sample.mask) * each.sum()
                roots.append(config.aux_coef * inference)
                gradients.append(torch.ones_like(inference))
                found = torch.cat([found, inference.detach()[None]])
            torch.autograd.backward(roots, gradients)
            metrics.append(found)
        norm = self.optimizer.step(config.max_grad_norm)
        return torch.cat([sum(metrics[1:], metrics[0]), norm[None]])

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

    def _track_returns(self, target: Tensor, mask: Tensor) -> None:
        """Follow mean and spread of the critic's targets, quickly at first and then over about 20 iterations.

        What the critic says of returns grows with them. To correct its last layer so that it does not (PopArt, van
        Hasselt et al. 2016) was worse where returns rise, that is while a policy learns (docs/findings.md, 18).
        """
        mean, std = spread(target, mask)
        weight = max(0.05, 1.0 / (self.updates + 1))
        self.return_mean.lerp_(mean, weight)  # in place: a recorded rollout reads it where it is
        self.return_std.lerp_(std, torch.where(self.return_std > 0.0, weight, 1.0))  # the first that there is counts

    def state_dict(self) -> dict[str, Tensor]:
        return {
            **{f"net.{name}": value for name, value in self.net.state_dict().items()},
            **(self.optimizer.state_dict() if "optimizer" in vars(self) else self._saved_optimizer),
            "return_mean": self.return_mean,
            "return_std": self.return_std,
            "updates": torch.tensor(self.updates),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.net.load_state_dict({k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")})
        vars(self).pop("optimizer", None)
        self._saved_optimizer = {name: value for name, value in state.items() if name.startswith("optimizer.")}
        self.return_mean.copy_(state["return_mean"])
        self.return_std.copy_(state["return_std"])
        self.updates = int(state["updates"])


def _columns(tree: Any, rows: Tensor) -> Any:
    """Rows (dimension 1) of a NamedTuple of ``(T, B, …)`` tensors."""
    if isinstance(tree, Tensor):
        return tree.index_select(1, rows)
    return type(tree)(*(_columns(field, rows) for field in tree))


def _parts(tree: Any, number: int) -> list[Any]:
    """So many parts of the same, each with some of the rows."""
    if isinstance(tree, Tensor):
        return list(tree.tensor_split(number, 1))
    return [type(tree)(*fields) for fields in zip(*(_parts(field, number) for field in tree), strict=True)]


def _slice(tree: Any, start: int, stop: int) -> Any:
    """Steps start … stop - 1 of the same."""
    if isinstance(tree, Tensor):
        return tree[start:stop]
    return type(tree)(*(_slice(field, start, stop) for field in tree))
