"""A stress test: an agent on the same tasks with and without conditions that it was not trained for.

Every condition is played on the same held-out tasks with the same noise as the undisturbed trials, so its cost is a
paired difference per task. Strengths are in units of the trial itself: noise in standard deviations of undisturbed
observations and rewards, delays in steps, distances from the training distribution as multiples of those of `ood`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.agents.random import RandomAgent
from metarl.core import rng
from metarl.core.agent import LearningAgent
from metarl.core.errors import unknown
from metarl.core.family import AnyFamily
from metarl.core.rollout import Agent, Rollout, run_trial
from metarl.core.tree import named_leaves, to_device, tree_map
from metarl.evaluation import stats
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.evaluator import EVALUATION, choose_tasks, default_repeats, evaluate
from metarl.studies.stress.family import Stressed, switched, unchanged

Floats = NDArray[np.float64]

MEASURED = 64
"""Number of tasks whose undisturbed trials define the units of noise."""
REFERENCE_TASKS = 1000
"""Number of tasks of `train` and of `ood` whose means and distances define the extrapolation."""


@dataclass(frozen=True)
class Stress:
    """A kind of condition, with the tested strengths."""

    name: str
    about: str
    """Description of a strength, with {} for the number."""
    strengths: tuple[float, ...]

    def said(self, strength: float) -> str:
        """Return the description of a strength."""
        return self.about.replace("steps", "step" if strength == 1 else "steps").format(f"{strength:g}")


STRESSES = (
    Stress("longer trial", "{}× the episodes", (2, 4)),
    Stress("task switch", "in the middle of the trial", (1,)),
    Stress("observation noise", "{} σ of what is seen", (0.1, 0.3)),
    Stress("reward noise", "{} σ of the rewards", (0.5, 1, 2)),
    Stress("delayed reward", "{} steps late", (1, 5)),
    Stress("action repeat", "{}×", (2, 4)),
    Stress("beyond ood", "{}× as far out as ood", (1.5, 2)),
)


class Result(NamedTuple):
    """The cost of a condition. Returns are per episode: the mean over the trial, or after the last round."""

    stress: str
    strength: float
    about: str
    plain: float
    """Undisturbed score; for a longer trial that of the last episode, for `beyond ood` that on `ood`."""
    score: float
    """Score under stress; for a longer trial that of the added episodes."""
    lost: tuple[float, float, float]
    """Mean paired loss on the same tasks, and its 95 % interval."""
    random: float
    """Score of random play under the same stress."""
    oracle: float | None
    """Best known return under this stress with the task known; None: unknown."""
    expected: float
    """The score without a loss (`expected`)."""
    retrained: float | None = None
    """Score of an agent that was trained under the condition, on the same trials; None: there is none."""

    @property
    def kept(self) -> float:
        """The score on the scale from random play (0) to the expected score (1: no loss)."""
        return self.share(self.score)

    def share(self, score: float) -> float:
        """Return a score on this scale; NaN if random play is as good as the expected score."""
        width = self.expected - self.random
        return (score - self.random) / width if width > 0 else math.nan


class Played(NamedTuple):
    """Scores of tasks under a condition, returns of an episode, with what random play and a told player have there."""

    scores: Floats  # (tasks,)
    random: float
    oracle: float | None


class Study(NamedTuple):
    """All conditions of an agent on a split, and why others do not apply."""

    agent: str
    family: str
    split: str
    tasks: int
    repeats: int
    seed: int
    results: tuple[Result, ...]
    left_out: dict[str, str]
    """Kind of stress → reason why it does not apply."""


def stress(
    agent: Agent,
    family: AnyFamily,
    split: str = "test",
    tasks: int = 500,
    only: Sequence[str] = (),
    seed: int = 0,
    progress: Callable[[str], Any] = lambda condition: None,
    retrained: Sequence[LearningAgent] = (),
) -> Study:
    """Play an agent under stress, on at most `tasks` tasks of a split.

    `only` names kinds of stress, by default all of `STRESSES`. The agents `retrained` were trained on a `Stressed`
    family; they play the condition closest to theirs, on the same trials. Raises ValueError for an unknown kind or
    split, and for retrained agents that fit no condition.
    """
    for name in only:
        if name not in (known := [each.name for each in STRESSES]):
            raise ValueError(unknown("kind of stress", name, known))
    player = _Player(agent, family, split, tasks, seed, retrained)
    results, left_out = list[Result](), dict[str, str]()
    for each in STRESSES:
        if only and each.name not in only:
            continue
        reason = _why_not(each, agent, family)
        if reason is None:
            for strength in each.strengths:
                progress(f"{each.name}, {each.said(strength)}")
                found = player.result(each, strength)
                if isinstance(found, str):
                    reason = found
                    break
                results.append(found)
        if reason is not None:
            left_out[each.name] = reason
    player.check_all_fitted()
    plain = player.plain
    return Study(
        plain.agent, plain.family, split, plain.returns.shape[1], plain.repeats, seed, tuple(results), left_out
    )


def _why_not(each: Stress, agent: Agent, family: AnyFamily) -> str | None:
    """Return the reason why a kind of stress does not apply, or None."""
    rounds = agent.protocol.test().rounds > 1
    if each.name == "task switch" and rounds:
        return "an agent that adapts in rounds starts each round afresh"
    if each.name == "task switch" and family.episodes_per_trial == 1 and family.horizon == 1:
        return "a trial is a single step"
    if each.name in ("task switch", "action repeat") and family.opaque:
        return "the family is played in a simulator"
    if each.name == "action repeat" and family.horizon < 2 * max(each.strengths):
        return f"an episode has {family.horizon} step{'s'[: family.horizon != 1]}"
    if each.name == "beyond ood" and "ood" not in family.splits:
        return "the family has no split ood"
    return None


class _Player:
    """The undisturbed trials of an agent, and those under stress, on the same tasks."""

    def __init__(
        self,
        agent: Agent,
        family: AnyFamily,
        split: str,
        tasks: int,
        seed: int,
        retrained: Sequence[LearningAgent] = (),
    ) -> None:
        self.retrained, self.fitted = retrained, set[int]()
        self.agent, self.family, self.split, self.seed, self.count = agent, family, split, seed, tasks
        self.root = rng.fold(rng.key(seed, getattr(agent, "device", None)), EVALUATION)
        self.tasks, distinct = choose_tasks(family, self.root, split, tasks)
        self.repeats = default_repeats(family, tasks, distinct, agent.costly)
        self.by_rounds = agent.protocol.test().rounds > 1

    def played(
        self,
        family: AnyFamily,
        task: Any,
        rounds: int | None = None,
        episodes: int | None = None,
        agent: Agent | None = None,
    ) -> AdaptationCurve:
        """Play the given tasks, with the noise of their numbers."""
        return evaluate(
            agent or self.agent, family, tasks=task, repeats=self.repeats, episodes=episodes, rounds=rounds,
            seed=self.seed, step_curve=False,
        )  # fmt: skip

    def random(self, family: AnyFamily, task: Any) -> float:
        """Return random play's mean return per episode over a whole trial, since delayed rewards come at its end."""
        few = tree_map(lambda leaf: leaf[:REFERENCE_TASKS], task)
        return float(evaluate(RandomAgent(family), family, tasks=few, seed=self.seed, step_curve=False).returns.mean())

    @cached_property
    def plain(self) -> AdaptationCurve:
        """The undisturbed trials."""
        return self.played(self.family, self.tasks)

    @cached_property
    def undisturbed(self) -> Played:
        """The scores of the undisturbed trials."""
        return self._of_tasks(self.plain, self.family, self.tasks)

    @cached_property
    def ood(self) -> tuple[Any, Played]:
        """Tasks of `ood`, and the scores on them."""
        task, _ = choose_tasks(self.family, self.root, "ood", self.count)
        return task, self._of_tasks(self.played(self.family, task), self.family, task)

    @cached_property
    def units(self) -> tuple[Tensor, float]:
        """Standard deviations of undisturbed observations ``(N,)`` and of rewards."""
        task = to_device(tree_map(lambda leaf: leaf[:MEASURED], self.tasks), self.root.device)
        return _spread(run_trial(self.agent, self.family, task, rng.fold(self.root, 4)))

    def result(self, each: Stress, strength: float) -> Result | str:
        """Return the cost of a condition, or the reason why it does not apply."""
        if each.name == "longer trial":
            return self._longer(each, int(strength))
        if each.name == "beyond ood":
            return self._beyond(each, strength)
        options: dict[str, Any] = {}
        if each.name == "task switch":
            options["switch"] = True
        elif each.name == "observation noise":
            of_obs, _ = self.units
            if not bool((of_obs > 0).any()):
                return "observations are always the same"
            options["obs_noise"] = (strength * of_obs).tolist()
        elif each.name == "reward noise":
            options["reward_noise"] = strength * self.units[1]
        elif each.name == "delayed reward":
            options["delay"] = int(strength)
        else:
            options["action_repeat"] = int(strength)
        family = Stressed(self.family, **options)
        task = switched(self.tasks) if "switch" in options else unchanged(self.tasks)
        after = self._of_tasks(self.played(family, task), family, task)
        found = self._result(each, strength, self.undisturbed, after)
        return found._replace(retrained=self._retrained(family, task))

    def _retrained(self, family: Stressed, task: Any) -> float | None:
        """Return the mean score of the agents that were trained under the family's stress; None without any."""
        there = [number for number, agent in enumerate(self.retrained) if same_stress(agent.family, family)]
        self.fitted |= set(there)
        scores = [self._per_episode(self.played(family, task, agent=self.retrained[number])) for number in there]
        return float(np.mean(scores)) if scores else None

    def check_all_fitted(self) -> None:
        """Raise ValueError for a retrained agent that matched no condition."""
        for number, agent in enumerate(self.retrained):
            if number not in self.fitted:
                raise ValueError(
                    f"An agent that was trained on {agent.family!r} fits none of the conditions: train it on a "
                    f"Stressed family around {self.family!r}, with the strength of one of them."
                )

    def _of_tasks(self, curve: AdaptationCurve, family: AnyFamily, task: Any) -> Played:
        """Return the scores of each task from a curve, with its bounds."""
        return Played(self._per_episode(curve), self.random(family, task), _bound(curve.oracle))

    def _per_episode(self, curve: AdaptationCurve) -> Floats:
        """Return the score of each task, ``(tasks,)``: a mean over its episodes, or after the last round."""
        scores: Floats = curve.returns[0].astype(np.float64)
        return scores[:, -1] if self.by_rounds else scores.mean(axis=1)

    def _longer(self, each: Stress, factor: int) -> Result:
        """Compare the episodes, or the round, added by a longer trial with the last one before."""
        plain, bounds = self.plain, self.undisturbed[1:]
        points = len(plain.labels)
        rounds, episodes = (1 + factor * (points - 1), None) if self.by_rounds else (None, factor * points)
        curve = self.played(self.family, self.tasks, rounds, episodes)
        last, added = plain.returns[0, :, -1], curve.returns[0, :, points:].mean(axis=1)
        return self._result(
            each, factor, Played(last.astype(np.float64), *bounds), Played(added.astype(np.float64), *bounds)
        )

    def _beyond(self, each: Stress, factor: float) -> Result | str:
        """Compare extrapolated tasks with the `ood` tasks that they are derived from."""
        task, before = self.ood
        extrapolated = beyond(self.family, task, factor)
        if isinstance(extrapolated, str):
            return extrapolated
        curve = self.played(self.family, extrapolated)
        return self._result(each, factor, before, self._of_tasks(curve, self.family, extrapolated))

    def _result(self, each: Stress, strength: float, before: Played, after: Played) -> Result:
        """Return the cost of a condition, from the same tasks without and with it."""
        difference = stats.paired_difference(before.scores[None, :, None], after.scores[None, :, None])
        lost, low, high = (float(value[0]) for value in difference)
        return Result(
            each.name, strength, each.said(strength), float(before.scores.mean()),
            float(after.scores.mean()), (lost, low, high), after.random, after.oracle, expected(before, after),
        )  # fmt: skip


def same_stress(trained: AnyFamily, played: Stressed) -> bool:
    """Tell whether a family is `played`; noise may differ by a tenth, since its unit is measured."""
    if not isinstance(trained, Stressed) or repr(trained.inner) != repr(played.inner):
        return False
    ways = [(each.delay, each.action_repeat, each.switch) for each in (trained, played)]
    before, now = (np.append(each.obs_noise, each.reward_noise).astype(float) for each in (trained, played))
    return ways[0] == ways[1] and before.shape == now.shape and np.allclose(before, now, rtol=0.1)


def _spread(rollouts: Sequence[Rollout]) -> tuple[Tensor, float]:
    """Return the standard deviations of a trial's observations ``(N,)`` and rewards."""
    seen = torch.cat([rollout.step.obs.flatten(2)[rollout.mask > 0] for rollout in rollouts])
    paid = torch.cat([rollout.outcome.reward[rollout.mask > 0] for rollout in rollouts])
    return seen.std(0, correction=0).cpu(), float(paid.std(correction=0))


def _bound(values: Any) -> float | None:
    """Return the mean of a bound over tasks."""
    return None if values is None else float(np.mean(values, dtype=np.float64))


def expected(before: Played, after: Played) -> float:
    """Return the score without a loss, from scores without and with a condition.

    It keeps the undisturbed position between random play and the oracle if the oracle is known, else the score.
    """
    plain = float(before.scores.mean())
    if before.oracle is None or after.oracle is None or before.oracle == before.random:
        return plain
    share = (plain - before.random) / (before.oracle - before.random)
    return after.random + share * (after.oracle - after.random)


def beyond(family: AnyFamily, task: Any, factor: float) -> Any | str:
    """Return tasks `factor` times as far from the mean training task as `task`, or a reason why there are none.

    Numbers that are positive in every task keep their sign: their ratio to the mean is raised to the power `factor`.
    Numbers within [0, 1] in every task, such as probabilities, are kept there.
    """
    train = family.sample_tasks(rng.key(0), REFERENCE_TASKS, "train")
    fields, changed = dict(_floats(task)), False
    if not fields or len(fields) < len(named_leaves(task)):
        return "a task is not made of real numbers alone"
    means = dict(_floats(train))
    made = {}
    for name, leaf in fields.items():
        mean, values = means[name].mean(0), torch.cat([means[name], leaf])
        if bool((values > 0).all()) and not bool((values <= 1).all()):
            out = mean * (leaf / mean) ** factor
        else:
            out = mean + factor * (leaf - mean)
        if bool(((values >= 0) & (values <= 1)).all()):
            out = out.clamp(0, 1)
        changed |= not torch.equal(out, leaf)
        made[name] = out
    if not changed:
        return "tasks cannot be further out than those of ood"
    names = iter(fields)
    extrapolated = tree_map(lambda leaf: made[next(names)], task)
    try:
        family.check_task(extrapolated)
    except ValueError:
        return "tasks further out than those of ood are impossible"
    return extrapolated


def _floats(task: Any) -> Iterator[tuple[str, Tensor]]:
    for name, leaf in named_leaves(task).items():
        if leaf.dtype.is_floating_point:
            yield name, leaf
