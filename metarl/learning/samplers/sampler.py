"""The noun `TaskSampler`: it proposes the tasks of an iteration, and sees the trials that were played on them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from metarl.core.agent import LearningAgent
from metarl.core.batch_env import BatchEnv
from metarl.core.family import Key, Task
from metarl.core.faults.verbs import SAMPLING, add_checks
from metarl.core.options import Part
from metarl.core.rollout import Rollout
from metarl.core.tree import num_rows, take
from metarl.learning import ranks

Player = LearningAgent
"""An agent of the sampler's own, which plays in place of the agent in training."""


class Proposal(NamedTuple):
    """Tasks that a sampler proposes."""

    tasks: Task  # (N, …) the whole meta-batch, the same on every rank
    learn: bool = True  # False: the trial is played only to be scored, and the sampler is asked again
    player: Player | None = None  # with learn = False: an agent of the sampler's own that plays it


class TaskSampler(ABC):
    """A rule for which tasks of `split` an agent trains on.

    In each iteration the loop asks for `propose`, plays a trial on the tasks, and shows it to `score`; then the agent
    learns from it. A proposal with ``learn = False`` is played and scored only, its steps count as steps of training,
    and the loop asks again. All randomness comes from the key of `propose`, so that the state of a sampler is what it
    has seen: `state_dict` is a part of the checkpoint, and a resumed run is exactly the uninterrupted one.

    With several ranks every rank has the whole sampler. Proposals are the same everywhere, `score` sees the trials of
    this rank's tasks, and `gathered` joins the scores.
    """

    watch: Callable[[BatchEnv], None] | None = None
    """Called after each step of a trial that is only scored, for what a rollout does not show; None: not called."""

    def __init__(self, agent: LearningAgent, split: str) -> None:
        """Make a sampler in its first state. Raises ValueError, one sentence, for an agent or a family that it cannot
        serve."""
        self.agent, self.family, self.split, self.device = agent, agent.family, split, agent.device

    def __init_subclass__(cls) -> None:
        """Let `propose` and `score` say what is wrong with what they are given."""
        super().__init_subclass__()
        add_checks(cls, SAMPLING)

    @abstractmethod
    def propose(self, key: Key, n: int) -> Proposal:
        """Propose `n` tasks; `key` is a scalar."""

    @abstractmethod
    def score(self, proposal: Proposal, trial: list[Rollout]) -> None:
        """Take in the trial on this rank's part of the proposed tasks, before the agent learns from it."""

    def learn(self, progress: float) -> dict[str, float]:
        """Learn from the iteration's trials, after the agent has, and return metrics.

        `progress` in [0, 1) is the share of training done. By default nothing is left to do: `score` did it all.
        """
        return {}

    def metrics(self) -> dict[str, float]:
        """Return the metrics ``tasks/…`` of the last iteration."""
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        """Return all that the sampler has learned as a flat dictionary of tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state_dict`. Raises ValueError, KeyError or RuntimeError if it is not of such a sampler."""
        if state:
            raise ValueError(f"it holds the state of another task sampler, such as {min(state)!r}")

    def fresh(self, key: Key, n: int) -> Task:
        """Draw `n` tasks of the split, as training without a curriculum does."""
        return self.family.sample_tasks(key, n, self.split)


def of_this_rank(tasks: Task) -> Task:
    """Return the tasks of this rank among those of a proposal."""
    return take(tasks, ranks.part(num_rows(tasks)))


def gathered(values: Tensor) -> Tensor:
    """Join numbers ``(n, …)`` of each rank's own tasks to those of the whole proposal, in its order."""
    if not ranks.several():
        return values
    shard = ranks.shard(len(values))
    whole = values.new_zeros(shard.every, *values.shape[1:])
    whole[shard.first : shard.first + len(values)] = values
    return ranks.total(whole)


@dataclass(frozen=True)
class SamplerOptions(Part):
    """Base of the options of a task sampler: a frozen dataclass that builds it."""

    def build(self, agent: LearningAgent, split: str) -> TaskSampler:
        """Make the sampler for this agent. Raises ValueError, one sentence, where the two do not fit."""
        raise NotImplementedError
