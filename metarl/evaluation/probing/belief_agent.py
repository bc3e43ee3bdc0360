"""Comparison of the probed agent with the exact-belief agent: divergence of actions, and lost return."""

from __future__ import annotations

from typing import NamedTuple

from metarl.core.agent import LearningAgent
from metarl.core.checks import same_spaces
from metarl.core.family import TaskFamily
from metarl.evaluation import stats
from metarl.evaluation.evaluator import describe, evaluate


class Lost(NamedTuple):
    """Returns of whole trials on the same tasks, and their paired difference with its 95 % interval."""

    belief_agent: float  # mean return of a trial
    agent: float
    lost: float  # the difference
    low: float
    high: float


def check_belief_agent(agent: LearningAgent, other: LearningAgent, split: str) -> None:
    """Raise ValueError unless `other` is an agent with a belief for the tasks that `agent` plays."""
    belief_split = getattr(other.config, "split", None)
    known = other.family.belief(belief_split) if isinstance(belief_split, str) else None
    if known is None or other.protocol.test().rounds != 1:
        raise ValueError(f"The belief agent must act on the exact belief, as Belief does, got {other.title}.")
    same_spaces(other, agent.family)
    if describe(other.family) != describe(agent.family):
        raise ValueError(
            f"The belief agent must be for the same tasks: it was trained on {describe(other.family)}, "
            f"and {agent.title} on {describe(agent.family)}."
        )
    assert belief_split is not None
    if not _covers(agent.family, belief_split, split):
        raise ValueError(
            f"The belief agent's prior is over the tasks of {belief_split!r}, which lack some of {split!r}: probe on "
            f"{belief_split!r}."
        )
    if not _shows_actions(agent) or not _shows_actions(other):
        raise ValueError(f"The distributions of actions of {agent.title} and {other.title} cannot be compared.")


def _covers(family: TaskFamily, prior: str, split: str) -> bool:
    """Return whether a belief with the split `prior` covers the tasks of a split."""
    if prior == split:
        return True
    if family.num_tasks(prior) is None and family.num_tasks(split) is None:
        return "ood" not in (prior, split)
    return prior == "all" if split != "valid" else prior in ("train", "all")


def _shows_actions(agent: LearningAgent) -> bool:
    return type(agent).action_distribution is not LearningAgent.action_distribution


def return_lost(agent: LearningAgent, other: LearningAgent, split: str, tasks: int, seed: int) -> Lost:
    """Evaluate both agents on the same tasks with the same noise, and compare their returns per trial."""
    curves = [evaluate(each, agent.family, split, tasks, seed=seed, step_curve=False) for each in (other, agent)]
    scores = [curve.scores[..., None] for curve in curves]
    difference, low, high = stats.paired_difference(scores[0], scores[1])
    return Lost(float(scores[0].mean()), float(scores[1].mean()), *(float(x[0]) for x in (difference, low, high)))
