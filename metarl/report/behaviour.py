"""The pictures at the end of a run: all tasks of a split, and the agent's behaviour in whole trials on some tasks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from metarl.agents.family_extras import Draw, pictures_for
from metarl.core.family import Sketch, State, Task, TaskFamily, drawn, has_picture
from metarl.core.tree import take, to_device
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.playback import Episode, Watched, replay
from metarl.evaluation.results import chosen_points
from metarl.report.beliefs.picture import belief_picture
from metarl.report.beliefs.story import nothing_to_show
from metarl.report.embeddings import picture as embeddings
from metarl.report.figures import png, task_map, where
from metarl.report.images import Captioned, gif, image_png, stack, strip

MAX_EPISODES = 6
"""Most episodes of a trial, or rounds, in a strip."""


MAX_FRAMES = 60
"""Most frames of the animation."""


FRAME = 360
"""Longest side of a frame, in pixels."""


class Picture(NamedTuple):
    """A finished picture."""

    tag: str  # "eval/test/behaviour/strip"
    data: bytes  # of a PNG or GIF file

    @property
    def file_name(self) -> str:
        """Name of the file, such as ``test_strip.png``."""
        split, *_, name = self.tag.removeprefix("eval/").split("/")
        return f"{split}_{name}.{'gif' if self.data.startswith(b'GIF') else 'png'}"


class Scene(NamedTuple):
    """A part of a trial that is drawn as one picture."""

    label: str
    episode: Episode  # episodes of one step are joined


class Trial(NamedTuple):
    """A trial on one task."""

    heading: str
    number: int  # of the task in the evaluation
    task: Task  # one row
    scenes: list[Scene]


def scenes(watched: Watched, family: TaskFamily, number: int, curve: AdaptationCurve) -> list[Scene]:
    """Return the pictures of the trial on task `number`: one per episode, or the first episode of each round.

    If an episode is one step (bandits), a picture shows the whole trial, or all recorded rows of the round.
    """
    trial = replay(watched, family, number, seed=curve.eval_seed or 0)
    if family.horizon == 1:
        rows = min(watched.rows, watched.protocol.test().envs_per_task)
        others = [replay(watched, family, number, row, curve.eval_seed or 0) for row in range(1, rows)]
        rounds = [
            _joined([episode for part in parts for episode in part]) for parts in zip(trial, *others, strict=True)
        ]
        return [Scene(curve.labels[i] if curve.rounds else "the whole trial", part) for i, part in enumerate(rounds)]
    episodes = [part[0] for part in trial] if curve.rounds else trial[0]
    return [Scene(label, episode) for label, episode in zip(curve.labels, episodes, strict=True)]


def _joined(episodes: Sequence[Episode]) -> Episode:
    """Join episodes of one step: the first state, then the state after each step."""
    states = [episodes[0].states[0], *(episode.states[-1] for episode in episodes)]
    return Episode(states, [episode.rewards[0] for episode in episodes])


def chosen_trials(family: TaskFamily, curve: AdaptationCurve, watched: Watched) -> list[Trial]:
    """Choose the trials on the tasks with the lowest, the median and the highest score."""
    scores = curve.scores[0]
    ranking = np.argsort(scores, kind="stable")
    chosen = {int(ranking[0]): "lowest", int(ranking[len(ranking) // 2]): "median"}
    chosen[int(ranking[-1])] = "highest"  # with fewer than three tasks, each is shown once
    rows = watched.protocol.test().envs_per_task
    which = f" (shown: {min(rows, watched.rows)} of its {rows} rows)" if rows > 1 else ""
    found = []
    for number, name in chosen.items():
        heading = f"{name} score of {len(scores)} tasks: {_short(float(scores[number]))} on task {number}{which}"
        task = take(watched.task, slice(number, number + 1))
        found.append(Trial(heading, number, task, scenes(watched, family, number, curve)))
    return found


def behaviour_strip(family: TaskFamily, trials: Sequence[Trial]) -> Image.Image:
    """Draw one row per trial: at most `MAX_EPISODES` scenes, with their returns."""
    rows = []
    for trial in trials:
        chosen = [trial.scenes[point] for point in chosen_points(len(trial.scenes), MAX_EPISODES)]
        pictures = [
            Captioned(_picture(family, trial.task, scene), scene.label, _return(scene.episode.rewards))
            for scene in chosen
        ]
        rows.append(Captioned(strip(pictures), trial.heading))
    return stack(rows)


def frames(
    family: TaskFamily,
    trial: Trial,
    most: int = MAX_FRAMES,
    size: int = FRAME,
    draw: Callable[[State], NDArray[np.uint8]] | None = None,
) -> list[Image.Image]:
    """Return at most `most` pictures of the trial so far, from start to end, with sides of at most `size` pixels.

    `draw` draws a state instead of the family's own picture.
    """
    moments = [(scene, steps) for scene in trial.scenes for steps in range(len(scene.episode.states))]
    spaced = set(np.linspace(0, len(moments) - 1, min(len(moments), most)).round().astype(int).tolist())
    sketch = _sketch(family, trial.task, trial.scenes)
    made = []
    for index, (scene, steps) in enumerate(moments):
        state = to_device(scene.episode.states[steps], "cpu")
        sketch.add(state, first=steps == 0)
        if index in spaced:
            image = Image.fromarray(sketch.image() if draw is None else draw(state))
            image.thumbnail((size, size))
            caption = f"{scene.label}, {_return(scene.episode.rewards[:steps])}"
            made.append(strip([Captioned(image, caption)], size, size))
    return made


def _sketch(family: TaskFamily, task: Task, shown: Sequence[Scene]) -> Sketch:
    """Return an empty sketch with room for the episodes of the scenes."""
    pulls = sum(len(scene.episode.rewards) for scene in shown)
    return family.sketch(to_device(task, "cpu"), pulls if family.horizon == 1 else len(shown))


def _picture(family: TaskFamily, task: Task, scene: Scene) -> Image.Image:
    states = [to_device(state, "cpu") for state in scene.episode.states]
    return Image.fromarray(drawn(_sketch(family, task, [scene]), [states]))


def _return(rewards: Sequence[float]) -> str:
    return f"return {_short(sum(rewards))}"


def _short(number: float) -> str:
    return f"{number:.3g}" if abs(number) < 1000 else f"{number:.0f}"


def pictures(
    family: TaskFamily,
    evaluated: Mapping[str, tuple[AdaptationCurve, Watched]],
    say: Callable[[str], None],
) -> Iterator[Picture]:
    """Return the pictures of the evaluated splits, by name (see docs/metrics.md).

    A picture that fails, for example in the family's own drawing, is left out, and `say` gets the reason as a line.
    """
    told = set()
    for tag, make in _plan(family, evaluated):
        try:
            data = make()
        except Exception as error:  # any exception: the results of the run matter more than its pictures
            why = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(": ")
            if why not in told:
                say(f"The picture {tag} could not be made ({why})")
            told.add(why)
        else:
            if data is not None:
                yield Picture(tag, data)


def _plan(
    family: TaskFamily, evaluated: Mapping[str, tuple[AdaptationCurve, Watched]]
) -> Iterator[tuple[str, Callable[[], bytes | None]]]:
    """Return the tag of each picture and its function, which returns None if there is nothing to show."""
    for split, (curve, watched) in evaluated.items():
        shown = _OfSplit(family, curve, watched)
        makers = {"tasks": shown.tasks, "where": shown.where}
        makers |= {name: functools.partial(shown.drawn, draw) for name, draw in pictures_for(family).items()}
        if not nothing_to_show(watched.agent, family, split, curve.rounds):
            makers["belief"] = shown.belief
        if not embeddings.nothing_to_show(watched.agent, len(curve.labels)):
            makers["embedding"] = shown.embedding
        if has_picture(family):
            makers |= {"behaviour/strip": shown.strip, "behaviour/trial": shown.trial}
        for name, make in makers.items():
            yield f"eval/{split}/{name}", make


class _OfSplit:
    """The pictures of one split, with shared data computed once."""

    def __init__(self, family: TaskFamily, curve: AdaptationCurve, watched: Watched) -> None:
        self.family, self.curve, self.watched = family, curve, watched

    def tasks(self) -> bytes:
        return png(task_map(self.curve))

    def where(self) -> bytes | None:
        figure = where(self.curve, self.watched.task)
        return None if figure is None else png(figure)

    def drawn(self, draw: Draw) -> bytes | None:
        """A picture that is registered for the family."""
        made = draw(self.family, self.curve, self.watched)
        return png(made) if isinstance(made, Figure) else made

    def strip(self) -> bytes:
        return image_png(behaviour_strip(self.family, self.trials))

    def belief(self) -> bytes:
        return belief_picture(self.family, self.curve, self.watched, self.trials[len(self.trials) // 2].number)

    def embedding(self) -> bytes | None:
        figure = embeddings.embedding_figure(self.curve, self.watched)
        return None if figure is None else png(figure)

    def trial(self) -> bytes:
        return gif(frames(self.family, self.trials[len(self.trials) // 2]))

    @functools.cached_property
    def trials(self) -> list[Trial]:
        return chosen_trials(self.family, self.curve, self.watched)
