"""How far must a reader go to follow one update? Files, and changes of file, on the way through the code.

``python -m benchmarks.reading [--list]`` traces one update of RL² and one of MAML with PPO on small work: every
function of the project that is called, once each, in the order of its first call. That is the order in which somebody
reads who looks up each name when it comes. Counted are the files on that way and how often the next function stands in
another file than the one before. `core/` is not counted (everybody knows it after a day), nor is `learning/ranks.py`,
whose functions return what they are given where there is one process. `fast/` is one file: it only computes the same
sooner.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table

import metarl
from metarl.agents import MAMLConfig, RL2Config
from metarl.agents.maml import PPOStep
from metarl.core import rng
from metarl.core.rollout import run_trial

PACKAGE = Path(metarl.__file__).resolve().parent
ROOTS = tuple(str(folder.resolve()) for folder in (PACKAGE, PACKAGE / "agents", PACKAGE / "envs"))


UNCOUNTED = "core", "metarl/learning/ranks.py"


class Way(NamedTuple):
    """The functions of one update, ``(file, name)``, in the order of their first call."""

    functions: list[tuple[str, str]]

    @property
    def files(self) -> list[str]:
        """Files in the order of their first function."""
        return list(dict.fromkeys(file for file, _ in self.functions))

    @property
    def changes(self) -> int:
        """Number of times that the next function stands in another file."""
        names = [file for file, _ in self.functions]
        return sum(a != b for a, b in itertools.pairwise(names))


def follow(agent: Any, trial: Any) -> Way:
    """Trace ``agent.update(trial)``."""
    seen: dict[CodeType, tuple[str, str]] = {}

    def look(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code not in seen and code.co_filename.startswith(ROOTS):
            seen[code] = (place(code.co_filename), code.co_qualname)

    sys.setprofile(look)
    try:
        agent.update(trial)
    finally:
        sys.setprofile(None)
    return Way([(file, name) for file, name in seen.values() if file not in UNCOUNTED and not name.endswith(">")])


def place(path: str) -> str:
    """The file as it is counted: all of `core/`, and all of `fast/`, are one."""
    for root in ROOTS[::-1]:
        if path.startswith(root):
            parts = Path(path).relative_to(root).parts
            folder = Path(root).name
            if folder == "metarl" and parts[0] in ("core", "fast"):
                return parts[0]
            return "/".join((folder, *parts))
    return path


def ways() -> dict[str, Way]:
    """One update each of RL² (GRU, one pass, one minibatch) and of MAML with PPO."""
    device, found = torch.device("cpu"), {}
    for name, config in {
        "RL²": RL2Config(meta_batch_size=8, hidden_size=16, update_epochs=1, num_minibatches=1),
        "MAML with PPO": MAMLConfig(meta_batch_size=4, fast_batch_size=4, outer=PPOStep(update_epochs=1)),
    }.items():
        family = metarl.make("metarl/Navigation2D-v0")
        agent = config.build(family, 0, device)
        trial = run_trial(agent, family, family.sample_tasks(rng.key(0), config.meta_batch_size), rng.key(1))
        found[name] = follow(agent, trial)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="list the functions on the way, too")
    args = parser.parse_args()
    console, table = Console(), Table("update", "files", "changes of file", "functions")
    for name, way in ways().items():
        table.add_row(name, str(len(way.files)), str(way.changes), str(len(way.functions)))
        if args.list:
            for file, function in way.functions:
                console.print(f"{name}: {file}: {function}", markup=False, highlight=False)
    console.print(table)


if __name__ == "__main__":
    main()
