"""Pictures and videos of a trained agent::

    metarl watch RUN_DIR [--split test] [--tasks 50] [--greedy]
    metarl watch pretrained:rl2_gridnavi --video trial.gif
    metarl watch pretrained:rl2_gridnavi --belief belief.png
    metarl watch RUN_DIR --embedding embedding.png --tasks 500

The program draws whole trials on the tasks with the lowest, the median and the highest score, and animates one of them,
or shows the belief about the reward's location along it, or an embedding of the agent's vectors for all tasks.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from metarl.cli import usage
from metarl.core.agent import LearningAgent
from metarl.core.errors import check_counts, unknown
from metarl.core.family import has_picture
from metarl.core.tree import to_device
from metarl.envs.mujoco.scene import robot_scene
from metarl.evaluation.arguments import check_size
from metarl.evaluation.files import replace_file
from metarl.evaluation.playback import watch
from metarl.fast.runtime import resolve_device, tune
from metarl.report.behaviour import behaviour_strip, chosen_trials, frames
from metarl.report.beliefs.picture import belief_picture
from metarl.report.beliefs.story import check_shown
from metarl.report.console import in_words, make_console, make_folder
from metarl.report.embeddings.picture import check_embedded, embedding_figure
from metarl.report.figures import png
from metarl.report.images import image_png
from metarl.report.video import check_video, save_video
from metarl.training.checkpoint import load
from metarl.training.config.names import allow

FRAMES = 600
"""Most frames of a video; a shorter trial has one frame per step."""
FRAME = 480
"""Longest side of a frame, in pixels."""


def program(arguments: Sequence[str]) -> int:
    """Run ``metarl watch …`` as the main program of this process."""
    tune()
    return main(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program. Returns 0, or 2 after one sentence on standard error for a mistake of the user's."""
    options = usage.watch().read(arguments)
    try:
        allow(options.allow)
        _watch(options, make_console())
    except (ValueError, OSError) as mistake:
        print(f"metarl watch: {in_words(mistake) if isinstance(mistake, OSError) else mistake}", file=sys.stderr)
        return 2
    return 0


def _watch(options: Any, console: Console) -> None:
    if options.video is not None:
        check_video(options.video)
    check_counts(tasks=options.tasks)
    agent = load(options.run, str(resolve_device(options.device)), options.which)
    family, split = agent.family, options.split
    if split not in family.splits:
        raise ValueError(unknown("split", split, family.splits, where=f" of {type(family).__name__}"))
    check_size(family, split, options.tasks)
    if not has_picture(family):
        raise ValueError(f"There is nothing to watch: {type(family).__name__} has no picture: {family.no_picture}")
    _check_pictures(options, agent)
    picture = options.out or _default(options.run, split)
    for path in (picture, options.video, options.belief, options.embedding):
        if path is not None:
            make_folder(path.parent)
    curve, watched = watch(agent, family, split, options.tasks, options.seed, options.greedy or None)
    trials = chosen_trials(family, curve, watched)
    replace_file(picture, image_png(behaviour_strip(family, trials)))
    for trial in trials:
        console.print(trial.heading, markup=False, highlight=False, soft_wrap=True)
    console.print(f"Written to {picture}", markup=False, highlight=False, soft_wrap=True)
    trial = next(one for one in trials if one.heading.startswith(options.trial)) if len(trials) == 3 else trials[0]
    if options.belief is not None:
        replace_file(options.belief, belief_picture(family, curve, watched, trial.number))
        console.print(f"Written to {options.belief}", markup=False, highlight=False, soft_wrap=True)
    if options.embedding is not None:
        figure = embedding_figure(curve, watched)
        if figure is None:
            raise ValueError(f"There is no embedding to show: the tasks played from {split!r} do not differ.")
        replace_file(options.embedding, png(figure))
        console.print(f"Written to {options.embedding}", markup=False, highlight=False, soft_wrap=True)
    if options.video is not None:
        scene = robot_scene(family, to_device(trial.task, "cpu"), FRAME)
        shown = frames(family, trial, FRAMES, FRAME, None if scene is None else scene.image)
        save_video(shown, options.video)
        console.print(f"Written to {options.video}", markup=False, highlight=False, soft_wrap=True)


def _check_pictures(options: Any, agent: LearningAgent) -> None:
    """Raise ValueError if a requested picture would be empty, or is not a .png file."""
    rounds = agent.protocol.test().rounds
    for name, path in {"trials": options.out, "beliefs": options.belief, "embeddings": options.embedding}.items():
        if path is not None and path.suffix != ".png":
            raise ValueError(f"The picture of {name} must be a .png, got {str(path)!r}.")
    if options.belief is not None:
        check_shown(agent, agent.family, options.split, rounds > 1)
    if options.embedding is not None:
        check_embedded(agent, rounds)


def _default(run: str, split: str) -> Path:
    """Return the picture's default path."""
    if run.startswith("pretrained:"):
        return Path("runs") / f"watch_{run.removeprefix('pretrained:')}" / f"{split}.png"
    return Path(run) / "watch" / f"{split}.png"
