"""RoML: train on the tasks on which the agent is worst, by the cross-entropy method (Greenberg et al. 2023).

The sampler has a distribution over the features of a task, initially that of the training split, and moves it towards
the tasks with the lowest returns. An agent that maximises its mean return then maximises the mean over the worst tasks
of the split (CVaR). The family's distribution is tilted, not replaced: each feature of a task is mapped to a standard
normal z by its rank in a fixed sample of the split, and tasks are drawn from a pool of new ones with the weights

    w(z) = Π N(z; mean, std²) / N(z; 0, 1).

Every task is therefore a valid task of the split, whatever its type. Once `batch` tasks have been played, mean and std
are fitted to the tasks whose returns are at or below the `alpha` quantile of the split, with importance weights 1 / w
(Greenberg et al. 2022, algorithm 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.agent import LearningAgent
from metarl.core.family import Key, Task
from metarl.core.options import SHARE, Rule, at_least, between, option
from metarl.core.rollout import Rollout
from metarl.core.tree import concatenate, features, num_rows, take
from metarl.learning.samplers.sampler import Proposal, SamplerOptions, TaskSampler, gathered, of_this_rank
from metarl.learning.samplers.scores import outcome

SAMPLE = 2048
"""Size of the fixed sample that maps features of tasks to standard normals."""

MOST_NUMBERS = 32
"""Largest number of features of a task; with more, a batch could not show on which of them the returns depend."""


@dataclass(frozen=True)
class RoMLOptions(SamplerOptions):
    """RoML (Greenberg et al. 2023)."""

    alpha: float = option(0.2, SHARE)
    """Fraction of worst tasks to which the distribution is fitted."""
    fresh: float = option(0.2, between(0, 1))
    """Fraction of each batch that is drawn from the training split itself."""
    rate: float = option(0.5, SHARE)
    """Step of mean and standard deviation towards those of the worst tasks played since the last step."""
    batch: int = option(128, at_least(2))
    """Smallest number of tasks per step; smaller meta-batches are combined, as few tasks have no clear worst ones."""
    min_std: float = option(0.2, Rule("lie in (0, 1]", lambda value: 0 < value <= 1))
    """Smallest standard deviation; that of the training split is 1."""
    pool: int = option(16, at_least(2))
    """New tasks to draw for each task that is chosen."""

    def build(self, agent: LearningAgent, split: str) -> RoML:
        return RoML(self, agent, split)


class Played(NamedTuple):
    """The tasks played since the last step."""

    z: Tensor  # (N, D) their features as standard normals
    weight: Tensor  # (N,) importance weight: density of the split over that of the sampler
    returns: Tensor  # (N,) mean return of an episode


class RoML(TaskSampler):
    """The sampler; see the module's docstring."""

    def __init__(self, options: RoMLOptions, agent: LearningAgent, split: str) -> None:
        super().__init__(agent, split)
        self.options = options
        # The key does not depend on the seed, so that z means the same in every run.
        sample = features(self.family.sample_tasks(rng.key(0, self.device), SAMPLE, split))
        self.varies = (sample != sample[0]).any(0)
        self.sample = sample[:, self.varies].sort(0).values.T.contiguous()  # (D, SAMPLE)
        if not 0 < len(self.sample) <= MOST_NUMBERS:
            name = type(self.family).__name__
            raise ValueError(
                f"RoML needs tasks with 1 to {MOST_NUMBERS} numbers that vary, and those of {name} have "
                f"{len(self.sample)}: choose another task sampler, such as plr."
            )
        self.mean = torch.zeros(len(self.sample), device=self.device)
        self.std = torch.ones(len(self.sample), device=self.device)
        self.quantile = torch.zeros((), device=self.device)
        self.played = self._nothing()

    def propose(self, key: Key, n: int) -> Proposal:
        """Propose new tasks of the split, most of them chosen by their weights."""
        tilted = n - round(self.options.fresh * n)
        own = self.fresh(rng.fold(key, 0), n - tilted)
        if not tilted:
            return Proposal(own)
        pool = self.fresh(rng.fold(key, 1), tilted * self.options.pool)
        weight = self.weight(pool).to(torch.float64)
        each = rng.fold(rng.fold(key, 2), torch.arange(tilted, device=key.device))
        # Each task is chosen from its own part of the pool, so that none is chosen twice.
        parts = weight.reshape(tilted, -1)
        choice = rng.choice(each, parts / parts.sum(1, keepdim=True))
        chosen = take(pool, choice + torch.arange(tilted, device=key.device) * self.options.pool)
        return Proposal(concatenate([chosen, own]) if n > tilted else chosen)

    def score(self, proposal: Proposal, trial: list[Rollout]) -> None:
        """Move the distribution towards the tasks with the lowest returns."""
        own = num_rows(of_this_rank(proposal.tasks))
        self.fit(proposal.tasks, gathered(outcome(self.agent, trial[-1], own).mean))

    def fit(self, tasks: Task, returns: Tensor) -> None:
        """Add the returns ``(N,)`` of tasks drawn by `propose`, and take a step once there are enough."""
        z = self.normal(tasks)
        share = round(self.options.fresh * len(z)) / len(z)
        new = Played(z, 1.0 / (share + (1.0 - share) * self._ratio(z)), returns)
        self.played = Played(*(torch.cat(both) for both in zip(self.played, new, strict=True)))
        if len(self.played.returns) >= self.options.batch:
            self._step(*self.played)
            self.played = self._nothing()

    def _step(self, z: Tensor, weight: Tensor, returns: Tensor) -> None:
        """Take one step of the cross-entropy method."""
        options = self.options
        order = returns.argsort(stable=True)
        upto = weight[order].cumsum(0) / weight.sum()
        self.quantile = returns[order][(upto < options.alpha).sum().clamp_max(len(order) - 1)]
        weight = weight * (returns <= self.quantile)
        weight = weight / weight.sum()
        mean = weight @ z
        std = (weight @ (z - mean) ** 2).sqrt()
        self.mean = self.mean + options.rate * (mean - self.mean)
        self.std = (self.std + options.rate * (std - self.std)).clamp(options.min_std, 1.0)

    def _nothing(self) -> Played:
        none = torch.zeros(0, device=self.device)
        return Played(none.new_zeros(0, len(self.sample)), none, none)

    def weight(self, tasks: Task) -> Tensor:
        """Return w of each task ``(N,)``."""
        return self._ratio(self.normal(tasks))

    def _ratio(self, z: Tensor) -> Tensor:
        log = -0.5 * ((z - self.mean) / self.std) ** 2 - self.std.log() + 0.5 * z * z
        return log.sum(1).clamp(-30.0, 30.0).exp()

    def normal(self, tasks: Task) -> Tensor:
        """Map the features of tasks to standard normals ``(N, D)``, by their ranks in the fixed sample."""
        numbers = features(tasks)[:, self.varies].T.contiguous()
        low = torch.searchsorted(self.sample, numbers)
        high = torch.searchsorted(self.sample, numbers, right=True)
        share = (0.5 * (low + high) + 0.5) / (SAMPLE + 1)  # ties get their mean rank
        z: Tensor = torch.special.ndtri(share).T
        return z

    def metrics(self) -> dict[str, float]:
        """Return the metrics; the divergence is KL(tilted ‖ split) in nats."""
        divergence = 0.5 * (self.mean**2 + self.std**2 - 1.0) - self.std.log()
        return {"tasks/quantile": float(self.quantile), "tasks/divergence": float(divergence.sum())}

    def state_dict(self) -> dict[str, Tensor]:
        state = {"mean": self.mean, "std": self.std, "quantile": self.quantile}
        return state | {f"played.{name}": value for name, value in self.played._asdict().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        # States from before meta-batches were combined have no pending tasks.
        state = {f"played.{name}": value for name, value in self._nothing()._asdict().items()} | state
        played = state["played.z"], state["played.weight"], state["played.returns"]
        shapes = state["mean"].shape, state["std"].shape, played[0].shape[1:]
        if any(shape != self.mean.shape for shape in shapes) or len({len(part) for part in played}) > 1:
            raise ValueError("its tasks are those of another family")
        state = {name: value.to(self.device).clone() for name, value in state.items()}
        self.played = Played(*(state[f"played.{name}"] for name in Played._fields))
        self.mean, self.std, self.quantile = state["mean"], state["std"], state["quantile"]
