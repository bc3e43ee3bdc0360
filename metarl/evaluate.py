"""How fast does an agent adapt to tasks it has not seen? In code ``metarl.evaluate(agent, family)``, and as a program::

    python -m metarl.evaluate RUN_DIR [--split test] [--tasks 1000] [--greedy]
    python -m metarl.evaluate pretrained:rl2_gridnavi

The program prints a table and writes, per split, a JSON, a CSV and a PNG file.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from metarl import rng
from metarl.agents.baselines import RandomAgent
from metarl.checkpoint import load
from metarl.console import QUIET, Parser, in_words, make_console, make_folder, show, text_of
from metarl.curve import AdaptationCurve, combine
from metarl.family import Key, Task, TaskFamily, made_with, num_rows, take, to_device, unknown
from metarl.rollout import Agent, Rollout, TrialProtocol, episode_lengths, episode_returns, run_trial
from metarl.runtime import resolve_device, tune
from metarl.table import adaptation_table

__all__ = ["AdaptationCurve", "adaptation_table", "combine", "evaluate", "main"]

EVALUATION = 0x6576616C  # "eval" in ASCII
"""The address of all evaluations: ``fold(key(seed), EVALUATION)``. Training counts its streams from 0."""

PROGRAM = "metarl.evaluate"  # how the program calls itself in what it says to the user

CHUNK_ROWS = 4096
CHUNK_BYTES = 1 << 28
"""An evaluation plays at most this many rows at once, and fewer where their rollout would take more memory."""


def evaluate(
    agent: Agent,
    family: TaskFamily,
    split: str = "test",
    tasks: int | Task = 1000,
    episodes: int | None = None,
    rounds: int | None = None,
    seed: int = 0,
    greedy: bool = False,
) -> AdaptationCurve:
    """The adaptation curve of `agent` on `tasks` tasks of a split, or on the tasks that are given.

    Points are the episodes of a trial; for an agent that adapts in rounds (MAML), or with ``rounds > 1``, they are the
    rounds, i.e. returns after 0, 1, 2 … adaptation steps, each the mean over the round's episodes and the task's rows.
    `episodes` (of a round) and `rounds` default to what the agent was made for.

    Tasks, starting states and noise depend on `seed` and the task's number alone: agents are compared on the same
    tasks with the same noise, the first 100 of 1000 tasks are the same as 100 tasks, and nothing is shared with a
    training run, whatever its seed. The random bound is the family's exact one, or `RandomAgent` on the same tasks.

    The environment is put where the agent is (its attribute `device`; the CPU for an agent without one). Memory is
    bounded: tasks are played in chunks, which changes nothing but, in a network, the last bit of a matrix product.
    Raises ValueError for an unknown split, for tasks of another family, or for tasks, episodes or rounds below 1.
    """
    _check(tasks=tasks, episodes=episodes, rounds=rounds)
    _check_task(family, tasks)
    device = torch.device(getattr(agent, "device", "cpu"))
    root = rng.fold(rng.key(seed, device), EVALUATION)
    protocol = agent.protocol.test()
    rounds = protocol.rounds if rounds is None else rounds
    episodes = (protocol.episodes or family.episodes_per_trial) if episodes is None else episodes
    by_rounds = max(rounds, protocol.rounds) > 1
    rows = _rows_at_once(family, episodes * rounds * family.horizon)
    returns, lengths, exact, oracle = [], [], [], []
    for first, task in _chunks(family, root, split, tasks, max(1, rows // protocol.envs_per_task), device):
        trial = run_trial(
            agent, family, task, rng.fold(root, 1), rounds=rounds, episodes=episodes,
            envs_per_task=protocol.envs_per_task, greedy=greedy, first_task=first,
        )  # fmt: skip
        points, steps = _points(trial, episodes, protocol.envs_per_task, by_rounds)
        returns.append(points)
        lengths.append(steps)
        oracle.append(_optional(family.oracle(task)))
        known = _optional(family.random_return(task))
        exact.append(_play_random(family, task, root, episodes, first) if known is None else known)
    per_point = episodes * protocol.envs_per_task if by_rounds else 1
    step_counts = np.concatenate(lengths).mean(axis=0, dtype=np.float64)
    return AdaptationCurve(
        returns=np.concatenate(returns)[None],
        episodes=np.arange(len(step_counts), dtype=np.float64) * per_point,
        env_steps=np.cumsum(step_counts) - step_counts,
        labels=_labels(len(step_counts), by_rounds, protocol),
        random=_joined(exact),
        oracle=_joined(oracle),
        agent=type(agent).__name__,
        family=describe(family),
        split=split if isinstance(tasks, int) else "given tasks",
        greedy=greedy,
        rounds=by_rounds,
    )


def _check_task(family: TaskFamily, tasks: int | Task) -> None:
    """Raise ValueError if a task is given that is another family's."""
    known = type(family.sample_tasks(rng.key(0), 1, family.splits[0]))
    if not isinstance(tasks, int) and type(tasks) is not known:
        name = type(family).__name__
        raise ValueError(f"A task of {name} is a {known.__name__}, got a value of {type(tasks).__name__}.")


def _check(**counts: int | Task | None) -> None:
    for name, number in counts.items():
        if isinstance(number, int) and number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}.")


def describe(family: TaskFamily) -> str:
    """The family and the options it was made with: ``BernoulliBandit(num_arms=5, episodes_per_trial=10)``."""
    return made_with(family)


def _rows_at_once(family: TaskFamily, steps: int) -> int:
    """Rows whose rollouts of `steps` steps together stay within `CHUNK_BYTES`."""
    observation = math.prod(family.observation_space.shape)
    action = math.prod(family.action_space.shape or ()) + 1
    per_step = 4 * (2 * observation + 2 * action + 8)
    return max(1, min(CHUNK_ROWS, CHUNK_BYTES // (per_step * steps)))


def _chunks(
    family: TaskFamily, root: Key, split: str, tasks: int | Task, size: int, device: torch.device
) -> Iterator[tuple[int, Task]]:
    """(number of the first task, at most `size` tasks on `device`), until there are no more."""
    count = tasks if isinstance(tasks, int) else num_rows(tasks)
    for first in range(0, count, size):
        n = min(size, count - first)
        if isinstance(tasks, int):
            yield first, family.sample_tasks(rng.fold(root, 0), n, split, first)
        else:
            yield first, to_device(take(tasks, slice(first, first + n)), device)


def _points(
    trial: list[Rollout], episodes: int, envs_per_task: int, by_rounds: bool
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return of each task at each point, and environment steps spent on it there: float32 ``(tasks, points)`` each."""
    returns, lengths = [], []
    for rollout in trial:
        # (tasks × envs_per_task, episodes) → (tasks, envs_per_task, episodes)
        got = episode_returns(rollout, episodes).reshape(-1, envs_per_task, episodes)
        took = episode_lengths(rollout, episodes).reshape(-1, envs_per_task, episodes)
        if by_rounds:
            returns.append(got.mean(dim=(1, 2))[:, None])
            lengths.append(took.sum(dim=(1, 2))[:, None])
        else:  # rows of one task play side by side and learn nothing from each other
            returns.append(got.mean(dim=1))
            lengths.append(took.mean(dim=1))
    return torch.cat(returns, dim=1).cpu().numpy(), torch.cat(lengths, dim=1).cpu().numpy()


def _play_random(family: TaskFamily, task: Task, root: Key, episodes: int, first: int) -> np.ndarray[Any, Any] | None:
    """Mean return of an episode of `RandomAgent` on each task, ``(tasks,)``; None if nothing is uniform there."""
    try:
        agent = RandomAgent(family, root.device)
    except ValueError:
        return None
    (rollout,) = run_trial(agent, family, task, rng.fold(root, 2), episodes=episodes, first_task=first)
    return episode_returns(rollout, episodes).mean(dim=1).cpu().numpy()


def _labels(points: int, by_rounds: bool, protocol: TrialProtocol) -> tuple[str, ...]:
    if not by_rounds:
        return tuple(f"episode {number}" for number in range(1, points + 1))
    if protocol.rounds == 1:  # an agent whose `adapt` may do anything or nothing
        return tuple(f"round {number}" for number in range(1, points + 1))
    return tuple(f"{number} {protocol.unit}{'s'[: number != 1]}" for number in range(points))


def _optional(value: torch.Tensor | None) -> np.ndarray[Any, Any] | None:
    return None if value is None else value.to(torch.float32).cpu().numpy()


def _joined(parts: list[np.ndarray[Any, Any] | None]) -> np.ndarray[Any, Any] | None:
    """The chunks as one array; None if any of them is."""
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if len(known) == len(parts) else None


def _parser() -> Parser:
    parser = Parser(
        prog="python -m metarl.evaluate",
        description="Evaluate a trained agent: return per adaptation episode on tasks it was not trained on.",
    )
    parser.add_argument("run", metavar="RUN", help="a run directory, or pretrained:NAME")
    parser.add_argument(
        "--split", nargs="+", metavar="NAME", help="train, test, ood, all (default: all that there are)"
    )
    parser.add_argument("--tasks", type=int, default=1000, metavar="N", help="tasks of each split (default: 1000)")
    parser.add_argument("--episodes", type=int, metavar="K", help="episodes of a trial (default: as trained)")
    parser.add_argument("--rounds", type=int, metavar="R", help="rounds of a trial, for agents that adapt in rounds")
    parser.add_argument("--seed", type=int, default=0, help="of tasks and noise (default: 0)")
    parser.add_argument("--greedy", action="store_true", help="take the most likely action instead of sampling")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for the files (default: RUN/evaluation)")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (default: auto)")
    parser.add_argument("--quiet", action="store_true", help=QUIET)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Returns 0, or 2 after one sentence on standard error for a mistake of the user's."""
    options = _parser().read(arguments)
    console = make_console(options.quiet)
    try:
        agent = load(options.run, device=str(resolve_device(options.device)))
        family = agent.family
        splits = options.split or list(family.splits)
        for split in splits:  # before the first one is played
            if split not in family.splits:
                raise ValueError(unknown("split", split, family.splits, where=f" of {type(family).__name__}"))
        _check(tasks=options.tasks, episodes=options.episodes, rounds=options.rounds)
        rng.key(options.seed)
        folder = options.out or _default_folder(options.run)
        make_folder(folder)
        keywords = {name: getattr(options, name) for name in ("tasks", "episodes", "rounds", "seed", "greedy")}
        curves, written = {}, []
        with console.status("") as status:  # shown on a terminal alone
            for split in splits:
                status.update(f"{options.tasks} tasks of {split}")
                curves[split] = evaluate(agent, family, split, **keywords)
                written.append(curves[split].save(folder / (split + ("_greedy" if options.greedy else ""))))
    except (ValueError, OSError) as mistake:
        print(f"{PROGRAM}: {in_words(mistake) if isinstance(mistake, OSError) else mistake}", file=sys.stderr)
        return 2
    table = adaptation_table(curves)
    show(console, table)
    (folder / "table.txt").write_text(text_of(table), encoding="utf-8")  # beside the numbers that it shows
    names = ", ".join(paths[0].stem for paths in written)
    console.print(f"Written to {folder}: {names}, each as .json, .csv and .png", markup=False, soft_wrap=True)
    return 0


def _default_folder(run: str) -> Path:
    if run.startswith("pretrained:"):
        return Path("runs") / f"evaluation_{run.removeprefix('pretrained:')}"
    return Path(run) / "evaluation"


class _CallableModule(ModuleType):
    """Makes ``metarl.evaluate(agent, family)`` work although ``metarl.evaluate`` is also this module's name."""

    def __call__(self, *args: Any, **kwargs: Any) -> AdaptationCurve:
        return evaluate(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule

if __name__ == "__main__":
    tune()
    sys.exit(main())
