"""ACCEL: prioritised replay whose tasks evolve by small edits (Parker-Holder et al. 2022, algorithm 1).

After a batch is replayed, its tasks are edited. The edited tasks are played only for scoring, and those with high
learning potential enter the buffer, where they are replayed and edited in turn. Tasks thus evolve to the limit of what
the agent can learn, without having to be drawn there at random.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.agent import LearningAgent
from metarl.core.checks import pattern_task
from metarl.core.family import AnyFamily, Key, Task, TaskFamily
from metarl.core.options import at_least, option
from metarl.core.rollout import Rollout
from metarl.core.tree import leaves, named_leaves, num_rows, take, tree_map, where
from metarl.learning.samplers.buffer import tasks_from
from metarl.learning.samplers.plr import PLR, PLROptions
from metarl.learning.samplers.sampler import Proposal


@dataclass(frozen=True)
class ACCELOptions(PLROptions):
    """ACCEL (Parker-Holder et al. 2022), with its own options and those of PLR; the paper uses robust: true."""

    robust: bool = True
    """Take no gradient on new tasks: play them only for scoring."""
    edits: int = option(1, at_least(1))
    """Number of edits of a replayed task."""

    def build(self, agent: LearningAgent, split: str) -> ACCEL:
        return ACCEL(self, agent, split)


class ACCEL(PLR):
    """The sampler; see the module's docstring."""

    options: ACCELOptions

    def __init__(self, options: ACCELOptions, agent: LearningAgent, split: str) -> None:
        super().__init__(options, agent, split)
        check(self.family, split)
        self.parents: Task = None  # the tasks of a replayed batch that will be edited next; None: none

    def propose(self, key: Key, n: int) -> Proposal:
        """Propose edits of the batch just replayed, for scoring; otherwise propose like PLR."""
        if self.parents is None:
            return super().propose(key, n)
        edited, self.parents = self.parents, None
        for number in range(self.options.edits):
            edited = edit(self.family, self.split, edited, rng.fold(rng.fold(key, 3), number))
        return Proposal(edited, learn=False)

    def score(self, proposal: Proposal, trial: list[Rollout]) -> None:
        super().score(proposal, trial)
        if self.replayed and proposal.learn:
            self.parents = proposal.tasks

    def state_dict(self) -> dict[str, Tensor]:
        parents = {} if self.parents is None else named_leaves(self.parents)
        return super().state_dict() | {f"parent.{name}": value for name, value in parents.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        super().load_state_dict(state)
        there = any(name.startswith("parent.") for name in state)
        self.parents = tasks_from(state, "parent.", pattern_task(self.family), self.device) if there else None


def check(family: AnyFamily, split: str) -> None:
    """Raise ValueError for a family whose tasks cannot be edited."""
    name = type(family).__name__
    if family.num_tasks(split) is not None:
        raise ValueError(
            f"ACCEL makes new tasks, and the split {split!r} of {name} has a fixed list of them: choose plr as the "
            "task sampler."
        )
    if not _mutates(family) and len(leaves(pattern_task(family))) < 2:
        raise ValueError(
            f"ACCEL edits one of several fields, and the tasks of {name} have only one: implement mutate(task, key), "
            "or choose plr as the task sampler."
        )


def edit(family: AnyFamily, split: str, tasks: Task, key: Key) -> Task:
    """Edit each task once, by the family's `mutate` or by redrawing one of its fields. `key` is a scalar.

    The new field comes from another task of the split. If the family rejects the result (`TaskFamily.check_task`), the
    task is not changed.
    """
    rows = rng.fold(key, torch.arange(num_rows(tasks), device=key.device))
    changed = family.mutate(tasks, rows)
    if changed is not None:
        return changed
    other = family.sample_tasks(rng.fold(key, -1), num_rows(tasks), split)
    chosen = rng.integers(rows, 1, len(leaves(tasks)))[:, 0]
    number = iter(range(len(leaves(tasks))))
    mixed = tree_map(lambda own, new: where(chosen == next(number), new, own), tasks, other)
    return where(possible(family, mixed), mixed, tasks)


def possible(family: AnyFamily, tasks: Task) -> Tensor:
    """Return which tasks the family accepts, bool ``(N,)``."""
    n = num_rows(tasks)
    good = torch.ones(n, dtype=torch.bool, device=leaves(tasks)[0].device)
    if not _refuses(family, tasks):
        return good
    for row in range(n):
        good[row] = not _refuses(family, take(tasks, slice(row, row + 1)))
    return good


def _refuses(family: AnyFamily, tasks: Task) -> bool:
    try:
        family.check_task(tasks)
    except ValueError:
        return True
    return False


def _mutates(family: AnyFamily) -> bool:
    return type(family).mutate is not TaskFamily.mutate
