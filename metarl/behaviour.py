"""The pictures at the end of a run: all of a split's tasks, and what the agent does in whole trials on some of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from metarl.best_arm import best_arm, references
from metarl.curve import AdaptationCurve, chosen_points
from metarl.family import State, Task, TaskFamily, take, to_device
from metarl.images import Captioned, gif, image_png, stack, strip
from metarl.pictures import png, task_map, where
from metarl.replay import Episode, Watched, replay

MAX_EPISODES = 6
"""Episodes of a trial, or rounds, that a strip shows."""
MAX_FRAMES = 60
"""Frames of the animation."""
FRAME = 360
"""Pixels: the largest side of a frame."""


class Picture(NamedTuple):
    """A finished picture."""

    tag: str  # "eval/test/behaviour/strip"
    data: bytes  # of a PNG or GIF file

    @property
    def file_name(self) -> str:
        """``test_strip.png``."""
        split, *_, name = self.tag.removeprefix("eval/").split("/")
        return f"{split}_{name}.{'gif' if self.data.startswith(b'GIF') else 'png'}"


class Scene(NamedTuple):
    """A part of a trial that makes one picture."""

    label: str
    episode: Episode  # several of a single step each as one


class Trial(NamedTuple):
    """A trial on one task."""

    heading: str
    task: Task  # one row
    scenes: list[Scene]


def scenes(watched: Watched, family: TaskFamily, number: int, curve: AdaptationCurve) -> list[Scene]:
    """The trial on task `number` in pictures: one per episode, or per round its first episode.

    Where an episode is a single step (bandits), a picture shows the whole trial, or all watched rows of the round.
    """
    trial = replay(watched, family, number)
    if family.horizon == 1:
        rows = min(watched.rows, watched.protocol.test().envs_per_task)
        others = [replay(watched, family, number, row) for row in range(1, rows)]
        rounds = [
            _joined([episode for part in parts for episode in part]) for parts in zip(trial, *others, strict=True)
        ]
        return [Scene(curve.labels[i] if curve.rounds else "the whole trial", part) for i, part in enumerate(rounds)]
    episodes = [part[0] for part in trial] if curve.rounds else trial[0]
    return [Scene(label, episode) for label, episode in zip(curve.labels, episodes, strict=True)]


def _joined(episodes: Sequence[Episode]) -> Episode:
    """Episodes of a single step as one: the first state, then the one after each step."""
    states = [episodes[0].states[0], *(episode.states[-1] for episode in episodes)]
    return Episode(states, [episode.rewards[0] for episode in episodes])


def chosen_trials(family: TaskFamily, curve: AdaptationCurve, watched: Watched) -> list[Trial]:
    """The trials on the tasks with the lowest, the median and the highest score."""
    scores = curve.scores[0]
    ranking = np.argsort(scores, kind="stable")
    chosen = {int(ranking[0]): "lowest", int(ranking[len(ranking) // 2]): "median"}
    chosen[int(ranking[-1])] = "highest"  # where there are fewer than three tasks, each is shown once
    rows = watched.protocol.test().envs_per_task
    which = f" (shown: {min(rows, watched.rows)} of its {rows} rows)" if rows > 1 else ""
    found = []
    for number, name in chosen.items():
        heading = f"{name} score of {len(scores)} tasks: {_short(float(scores[number]))} on task {number}{which}"
        task = take(watched.task, slice(number, number + 1))
        found.append(Trial(heading, task, scenes(watched, family, number, curve)))
    return found


def behaviour_strip(family: TaskFamily, trials: Sequence[Trial]) -> Image.Image:
    """A row for each trial: its scenes, at most `MAX_EPISODES` of them, with their returns."""
    rows = []
    for trial in trials:
        chosen = [trial.scenes[point] for point in chosen_points(len(trial.scenes), MAX_EPISODES)]
        pictures = [
            Captioned(_render(family, trial.task, scene.episode.states), scene.label, _return(scene.episode.rewards))
            for scene in chosen
        ]
        rows.append(Captioned(strip(pictures), trial.heading))
    return stack(rows)


def frames(family: TaskFamily, trial: Trial) -> list[Image.Image]:
    """The picture of a trial so far, at most `MAX_FRAMES` times, from its start to its end."""
    moments = [(scene, steps) for scene in trial.scenes for steps in range(len(scene.episode.states))]
    spaced = np.linspace(0, len(moments) - 1, min(len(moments), MAX_FRAMES)).round().astype(int)
    states = [state for scene in trial.scenes for state in scene.episode.states]
    made = []
    for index in spaced:
        scene, steps = moments[index]
        image = _render(family, trial.task, states[: index + 1])
        image.thumbnail((FRAME, FRAME))
        made.append(strip([Captioned(image, f"{scene.label}, {_return(scene.episode.rewards[:steps])}")], FRAME, FRAME))
    return made


def has_picture(family: TaskFamily) -> bool:
    """Whether the family draws itself."""
    return type(family).render is not TaskFamily.render


def _render(family: TaskFamily, task: Task, states: list[State]) -> Image.Image:
    return Image.fromarray(family.render(to_device(task, "cpu"), [to_device(state, "cpu") for state in states]))


def _return(rewards: Sequence[float]) -> str:
    return f"return {_short(sum(rewards))}"


def _short(number: float) -> str:
    return f"{number:.3g}" if abs(number) < 1000 else f"{number:.0f}"


def pictures(family: TaskFamily, evaluated: Mapping[str, tuple[AdaptationCurve, Watched]]) -> Iterator[Picture]:
    """The pictures of the splits that were evaluated, by name (see docs/metrics.md)."""
    players = references(family, next(iter(evaluated.values()))[1].device)
    for split, (curve, watched) in evaluated.items():
        yield Picture(f"eval/{split}/tasks", png(task_map(curve)))
        parameters = where(curve, watched.task)
        if parameters is not None:
            yield Picture(f"eval/{split}/where", png(parameters))
        arms = best_arm(curve, watched, family, players)
        if arms is not None:
            yield Picture(f"eval/{split}/best_arm", png(arms))
        if has_picture(family):
            yield from behaviour(family, curve, watched)


def behaviour(family: TaskFamily, curve: AdaptationCurve, watched: Watched) -> Iterator[Picture]:
    """The strip of three tasks, and the animation of the middle one."""
    shown = chosen_trials(family, curve, watched)
    yield Picture(f"eval/{curve.split}/behaviour/strip", image_png(behaviour_strip(family, shown)))
    yield Picture(f"eval/{curve.split}/behaviour/trial", gif(frames(family, shown[len(shown) // 2])))
