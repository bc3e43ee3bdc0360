"""The beliefs along a trial: maps of the ground at moments of the trial, of an agent and of an ideal observer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.core import rng
from metarl.core.batch_env import Step
from metarl.core.beliefs.belief import Belief
from metarl.core.beliefs.places import Ground, goal_masses
from metarl.core.family import TaskFamily
from metarl.core.rollout import Agent, Believer
from metarl.core.tree import take
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.playback import Watched, env_again

PANELS = 7
"""Most moments of a trial that are shown."""


XY = tuple[float, float]


class Moment(NamedTuple):
    """A moment of a trial: after this many steps of an episode."""

    episode: int  # from 1
    step: int


class Row(NamedTuple):
    """Maps of one belief, one for each moment."""

    heading: str
    who: str  # the name of an agent, or OBSERVER
    maps: NDArray[np.float32]  # (moments, rows, columns); the agent defines the scale


class Story(NamedTuple):
    """The content of a picture of beliefs."""

    ground: Ground
    moments: list[Moment]
    paths: list[list[XY]]  # the agent's positions in each episode, one more than its steps
    goals: dict[str, XY]  # the true places, by name
    rows: list[Row]


OBSERVER = "optimum"
"""The name of the ideal observer, for its colour."""


def nothing_to_show(agent: Agent, family: TaskFamily, split: str, rounds: bool) -> str:
    """Return the reason, a sentence, why there is no picture of beliefs; empty if there is one.

    `rounds` tells whether the agent adapts in rounds.
    """
    name, player = type(family).__name__, getattr(agent, "title", type(agent).__name__)
    if rounds:
        return f"{player} adapts in rounds, and beliefs are drawn only for trials of one round."
    if split not in family.splits:
        return "Tasks given by value have no split, and so no prior."
    if family.ground(split) is None:
        return f"The tasks of {name} are not places: it does not implement ground(split)."
    if isinstance(agent, Believer) or _observer(family, split) is not None:
        return ""
    return f"{player} has no goal_map(memory, points), and {name} has no exact belief about {split!r}."


def check_shown(agent: Agent, family: TaskFamily, split: str, rounds: bool) -> None:
    """Raise ValueError if there is no picture of beliefs."""
    missing = nothing_to_show(agent, family, split, rounds)
    if missing:
        raise ValueError(f"There is no belief to show: {missing}")


def tell(family: TaskFamily, curve: AdaptationCurve, watched: Watched, number: int) -> Story:
    """Replay the trial on task `number` of an evaluation, and record the beliefs.

    Raises ValueError if there is nothing to show.
    """
    check_shown(watched.agent, family, curve.split, curve.rounds)
    ground = family.ground(curve.split)
    assert ground is not None
    steps, paths = _replayed(family, watched, number, curve.eval_seed or 0)
    moments = chosen_moments([len(path) - 1 for path in paths])
    at = [sum(len(path) - 1 for path in paths[: moment.episode - 1]) + moment.step for moment in moments]
    with torch.no_grad():
        rows = [*_of_agent(watched.agent, curve.agent, ground, steps, at)]
        rows += _of_observer(family, curve.split, ground, steps, at)
    task = take(watched.task, slice(number, number + 1))
    goals = {name: _xy(place) for name, place in ground.places(task).items()}
    return Story(ground, moments, paths, goals, _joined(rows))


def chosen_moments(lengths: Sequence[int], most: int = PANELS) -> list[Moment]:
    """Choose at most this many moments of a trial whose episodes have these lengths.

    They are the start, the first step, steps of the first episode that double up to its end, and the ends of the second
    and the last episode. Raises ValueError for fewer than five.
    """
    if most < 5:
        raise ValueError(f"most must be at least 5, got {most}.")
    later = sorted({2, len(lengths)}) if len(lengths) > 1 else []
    steps = {0, 1, *(round(lengths[0] / 2**halved) for halved in range(most - len(later) - 2))}
    found = [Moment(1, step) for step in sorted(steps)]
    return found + [Moment(episode, lengths[episode - 1]) for episode in later]


def _replayed(family: TaskFamily, watched: Watched, number: int, seed: int) -> tuple[list[Step], list[list[XY]]]:
    """Return the agent's steps, including the one after the trial's end, and its positions in each episode."""
    (actions,) = watched.actions(number)
    env = env_again(watched, family, number, seed=seed)
    steps = [env.reset()]
    paths = [[_xy(steps[0].obs)]]
    for action in actions:
        outcome, step = env.step(action)
        steps.append(step)
        paths[-1].append(_xy(outcome.final_obs))
        if not env.alive:
            break
        if step.prev_done:
            paths.append([_xy(step.obs)])
    return steps, paths


def _of_agent(agent: Agent, name: str, ground: Ground, steps: Sequence[Step], at: Sequence[int]) -> Iterator[Row]:
    """Return the maps of an agent that provides them."""
    if not isinstance(agent, Believer):
        return
    points, maps = ground.points(steps[0].obs.device), []
    memory, keys = agent.begin(1), rng.fold(rng.key(0, points.device), torch.arange(1, device=points.device))
    for number, step in enumerate(steps):
        _, memory = agent.act(memory, step, keys)  # the returned action is ignored: steps hold the actual one
        if number in at:
            maps += [agent.goal_map(memory, points)] * at.count(number)
    yield Row(f"what {name} believes", name, _cells(ground, maps))


def _observer(family: TaskFamily, split: str) -> tuple[str, Belief] | None:
    """Return the belief of an ideal observer, and the split of its prior: `all` rather than a part of it."""
    prior = "all" if "all" in family.splits and split != "ood" else split
    belief = family.belief(prior)
    weighted = None if belief is None else belief.weighted_tasks(belief.prior(1))
    return None if belief is None or weighted is None else (prior, belief)


def _of_observer(
    family: TaskFamily, split: str, ground: Ground, steps: Sequence[Step], at: Sequence[int]
) -> Iterator[Row]:
    """Return the maps of the ideal observer, one row per place of a task, if its belief can be computed."""
    found = _observer(family, split)
    if found is None:
        return
    prior, belief = found
    points, device = ground.points(steps[0].obs.device), steps[0].obs.device
    maps: dict[str, list[Tensor]] = {}
    state = belief.prior(1, device)
    for number, step in enumerate(steps):
        state = belief.posterior(state, step)
        if number in at:
            weighted = belief.weighted_tasks(state)
            assert weighted is not None
            for name, mass in goal_masses(ground, *weighted, points).items():
                maps.setdefault(name, []).extend([mass] * at.count(number))
    for name, each in maps.items():
        what = f" of the {name}" if len(maps) > 1 else ""
        yield Row(f"what can be known{what} (prior: tasks of {prior})", OBSERVER, _cells(ground, each))


def _joined(rows: list[Row]) -> list[Row]:
    """Merge two rows that show the same."""
    if len(rows) == 2 and rows[0].who != OBSERVER and np.allclose(rows[0].maps, rows[1].maps, atol=1e-5):
        return [rows[0]._replace(heading=f"{rows[0].heading}: all that can be known")]
    return rows


def _cells(ground: Ground, maps: Sequence[Tensor]) -> NDArray[np.float32]:
    stacked: NDArray[np.float32] = torch.cat(list(maps)).reshape(-1, ground.rows, ground.columns).cpu().numpy()
    return stacked


def _xy(vector: Tensor) -> XY:
    x, y = vector[0].tolist()
    return float(x), float(y)
