"""Make docs/images/belief_*.png, what is believed along a trial::

python -m docs.make_belief_pictures [--run NAME=RUN …]

A picture shows the agent of the package that has a belief, or as long as none ships the RL² agent, whose trial only the
ideal observer explains. ``--run gridnavi=RUN_DIR`` takes another agent.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import metarl
from metarl.core.agent import LearningAgent
from metarl.evaluation.files import replace_file
from metarl.evaluation.playback import watch
from metarl.report.beliefs.picture import belief_picture
from metarl.training.checkpoint import PRETRAINED

IMAGES = Path(__file__).parent / "images"
SEED = 3
TASKS = 20


class Scene(NamedTuple):
    """A picture: who plays, on which task."""

    agents: tuple[str, ...]  # presets, of which the first one that ships plays
    split: str
    number: int  # of the task in the evaluation


SCENES = {
    "gridnavi": Scene(("belief_gridnavi", "rl2_gridnavi"), "all", 3),
    "sparse_point_robot": Scene(("belief_sparse_point_robot", "rl2_sparse_point_robot"), "test", 4),
}


def player(scene: Scene) -> str:
    """Return the first agent of a scene that the package has."""
    return next(f"pretrained:{name}" for name in scene.agents if (PRETRAINED / name).exists())


def made(agent: LearningAgent, scene: Scene) -> bytes:
    """Return the picture of an agent in a scene."""
    curve, watched = watch(agent, agent.family, scene.split, TASKS, SEED)
    return belief_picture(agent.family, curve, watched, scene.number)


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--run", action="append", default=[], metavar="NAME=RUN", help=f"NAME is in {', '.join(SCENES)}"
    )
    given = dict(each.split("=", 1) for each in parser.parse_args(args).run)
    for name, scene in SCENES.items():
        run = given.get(name, player(scene))
        path = IMAGES / f"belief_{name}.png"
        replace_file(path, made(metarl.load(run, device="cpu"), scene))
        print(f"{path}: {run}")


if __name__ == "__main__":
    main()
