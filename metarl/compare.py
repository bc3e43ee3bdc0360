"""Which agent adapts fastest? ::

    python -m metarl.compare RUN [NAME=RUN …] [--baselines random oracle …] [--tasks 200]

evaluates all of them on the same tasks with the same noise, prints a table per split, and writes
``comparison.{json,csv,md,png}`` and a TensorBoard run. Runs of one configuration with several seeds are one line.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rich.console import Console
from rich.markup import escape
from torch.utils.tensorboard import SummaryWriter

from metarl import checkpoint
from metarl.agent import LearningAgent
from metarl.agents.catalogue import baseline
from metarl.comparison import Comparison
from metarl.config_file import read_yaml
from metarl.config_names import ALLOW, allow
from metarl.console import QUIET, Parser, at_home, in_words, make_console, make_folder, new_folder, show
from metarl.curve import AdaptationCurve, combine
from metarl.errors import unknown
from metarl.evaluate import evaluate
from metarl.family import TaskFamily
from metarl.rollout import Agent
from metarl.runtime import resolve_device, tune
from metarl.suite import Suite

IRRELEVANT = {"seed", "run_dir", "device", "num_threads", "profile", "checkpoint_every", "allow"}
IRRELEVANT |= {"eval_every", "eval_tasks", "eval_repeats", "eval_splits", "final_eval_tasks"}
"""Fields of a configuration in which the seeds of one experiment may differ."""


class Line(NamedTuple):
    """One line of the comparison: the seeds of one configuration, or a baseline."""

    name: str
    agents: list[Agent]
    family: TaskFamily
    budget: str


def lines(runs: Sequence[str], device: str) -> list[Line]:
    """The trained agents, runs of one configuration together. Raises ValueError for a run that cannot be loaded."""
    groups: dict[str, list[tuple[str, Path | str]]] = {}
    for run in runs:
        name, folders = _folders(run)
        for folder in folders:
            values = read_yaml(checkpoint.find(folder) / "config.yaml")
            same = yaml.safe_dump({key: value for key, value in values.items() if key not in IRRELEVANT})
            groups.setdefault(same, []).append((name, folder))
    found: list[Line] = []
    for members in groups.values():
        agents = [checkpoint.load(folder, device) for _, folder in members]
        done = [checkpoint.load_state(checkpoint.find(folder))[1] for _, folder in members]
        seconds = f", {sum(one.seconds for one in done) / len(done):,.0f} s" if all(one.seconds for one in done) else ""
        budget = f"{done[0].env_steps:,} environment steps of training{seconds}, {len(done)} seed(s)"
        name = _unique(members[0][0], [line.name for line in found])
        found.append(Line(name, list(agents), agents[0].family, budget))
    return found


def _folders(run: str) -> tuple[str, list[Path | str]]:
    """The name of ``[NAME=]RUN`` and its run directories: one, or those in a folder of several seeds."""
    name, where = _parts(run)
    if where.startswith("pretrained:"):
        return name or where.removeprefix("pretrained:"), [where]
    folder = Path(where)
    name = name or folder.resolve().name
    several = sorted(path.parent for path in folder.glob("*/config.yaml"))
    if several and not (folder / "config.yaml").exists():
        return name, list(several)
    return name, [folder]


def _parts(run: str) -> tuple[str, str]:
    """NAME, "" if there is none, and RUN of ``[NAME=]RUN``, either of which may hold a "=" of its own.

    A folder that exists is a RUN. Otherwise the name ends at the first "=" after which one begins.
    """

    def exists(where: str) -> bool:
        return where.startswith("pretrained:") or (where != "" and Path(where).is_dir())

    splits = [(run[:at], at_home(run[at + 1 :])) for at, letter in enumerate(run) if letter == "="]
    for name, where in (("", run), *splits):
        if exists(where):
            return name, where
    # None is there: the sentence is to name what was meant, and a name has no slashes.
    return splits[0] if splits and "/" not in splits[0][0] else ("", run)


def _unique(name: str, taken: Sequence[str]) -> str:
    number = 2
    tried = name
    while tried in taken:
        tried, number = f"{name} ({number})", number + 1
    return tried


def check_families(found: Sequence[Line]) -> None:
    """Raise ValueError unless all are agents for the same tasks: of one family, but for the episodes of a trial."""
    first = found[0]
    for line in found[1:]:
        same = type(line.family) is type(first.family)
        if not same or _options(line.family) != _options(first.family):
            raise ValueError(
                f"Only agents for the same tasks compare: {first.name!r} is for {_described(first.family)}, "
                f"{line.name!r} for {_described(line.family)}."
            )


def _options(family: TaskFamily) -> dict[str, Any]:
    plain = {k: v for k, v in vars(family).items() if isinstance(v, (bool, int, float, str))}
    return {name: value for name, value in plain.items() if name != "episodes_per_trial"}


def _described(family: TaskFamily) -> str:
    return f"{type(family).__name__}({', '.join(f'{k}={v!r}' for k, v in _options(family).items())})"


def compare(
    found: Sequence[Line], splits: Sequence[str], tasks: int = 200, rounds: int | None = None, seed: int = 0,
    greedy: bool = False, console: Console | None = None, costly_tasks: int = 20, repeats: int | None = None,
) -> Comparison:  # fmt: skip
    """Evaluate every line on the same tasks. `rounds` is for agents that adapt in rounds alone.

    Agents whose adaptation is a training run of its own (PPO on each task) play the first `costly_tasks` of them.
    All play each task in `repeats` trials; by default in as many as `metarl.evaluate` plays.
    """
    entries: dict[str, dict[str, AdaptationCurve]] = {}
    console = console or Console(quiet=True)
    with console.status("") as status:
        for line in found:
            for split in splits:
                number = min(tasks, costly_tasks) if line.agents[0].protocol.costly else tasks
                status.update(f"{escape(line.name)} on {number} tasks of {split}")
                curves = [
                    evaluate(
                        agent,
                        line.family,
                        split,
                        number,
                        repeats,
                        rounds=_rounds(agent, rounds),
                        seed=seed,
                        greedy=greedy,
                    )
                    for agent in line.agents
                ]
                entries.setdefault(line.name, {})[split] = combine(curves)
    return Comparison(entries, {line.name: line.budget for line in found})


def suite(runs: Sequence[str], options: Any, console: Console) -> Suite:
    """Evaluate ``NAME=RUN`` agents, each name on every family, on the split that is asked for (default: test).

    Runs of one name and family are its training seeds. Raises ValueError as `lines` and `Suite` do.
    """
    agents: dict[str, dict[str, list[LearningAgent]]] = {}
    for run in runs:
        name, folders = _folders(run)
        for folder in folders:
            agent = checkpoint.load(folder, str(resolve_device(options.device)))
            agents.setdefault(_described(agent.family), {}).setdefault(name, []).append(agent)
    split = (options.split or ["test"])[0]
    curves: dict[str, dict[str, AdaptationCurve]] = {}
    with console.status("") as status:
        for family, by_name in agents.items():
            for name, seeds in by_name.items():
                status.update(f"{name} on {family}")
                played = [
                    evaluate(
                        agent, agent.family, split, options.tasks, options.repeats,
                        rounds=_rounds(agent, options.rounds), seed=options.seed, greedy=options.greedy,
                    ) for agent in seeds
                ]  # fmt: skip
                curves.setdefault(family, {})[name] = combine(played)
    return Suite(curves)


def _rounds(agent: Agent, rounds: int | None) -> int | None:
    return rounds if agent.protocol.test().rounds > 1 else None


def to_tensorboard(comparison: Comparison, folder: Path) -> None:
    """A run per agent, whose curves TensorBoard lays over each other, and the figure and the tables in `folder`."""
    with SummaryWriter(str(folder)) as writer:
        writer.add_figure("compare/figure", comparison.figure(), close=False)
        writer.add_text("compare/tables", comparison.markdown())
    for name, curves in comparison.entries.items():
        with SummaryWriter(str(folder / name.replace("/", "_"))) as writer:
            for split, curve in curves.items():
                for steps, value in zip(curve.env_steps, curve.mean(), strict=True):
                    writer.add_scalar(f"compare/{split}/return", float(value), int(steps))


def _parser() -> Parser:
    parser = Parser(prog="python -m metarl.compare", description="Compare agents on the same tasks.")
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="a run directory, a folder of several seeds, or pretrained:NAME"
    )
    parser.add_argument("--baselines", nargs="+", default=[], metavar="NAME", help="random, oracle, thompson, …")
    parser.add_argument("--split", nargs="+", metavar="NAME", help="default: train, test and ood, as there are")
    parser.add_argument("--tasks", type=int, default=200, metavar="N", help="of each split (default: 200)")
    parser.add_argument(
        "--costly_tasks", type=int, default=20, metavar="N", help="for agents that train on each task (default: 20)"
    )
    parser.add_argument("--repeats", type=int, metavar="R", help="trials on each task (default: as metarl.evaluate)")
    parser.add_argument("--rounds", type=int, metavar="R", help="rounds of a trial, for agents that adapt in rounds")
    parser.add_argument("--seed", type=int, default=0, help="of tasks and noise (default: 0)")
    parser.add_argument("--greedy", action="store_true", help="take the most likely action instead of sampling")
    parser.add_argument(
        "--suite",
        action="store_true",
        help="NAME=RUN agents, each name on several families: one table",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="for the files (default: runs/comparison_TIME)")
    parser.add_argument("--allow", action="append", default=[], metavar="PACKAGE", help=ALLOW)
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (default: auto)")
    parser.add_argument("--quiet", action="store_true", help=QUIET)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Returns 0, or 2 after one sentence on standard error for a mistake of the user's."""
    options = _parser().read(arguments)
    console = make_console(options.quiet, width=140)
    try:
        allow(options.allow)
        for name in ("tasks", "costly_tasks", "repeats", "rounds"):
            if getattr(options, name) is not None and getattr(options, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(options, name)}.")
        if options.suite:
            folder = _out(options)
            together = suite(options.runs, options, console)
            paths = together.save(folder)
            show(console, together.table())
            names = ", ".join(path.name for path in paths)
            console.print(f"Written to {folder}: {names}", markup=False, soft_wrap=True)
            return 0
        device = str(resolve_device(options.device))
        found = lines(options.runs, device)
        check_families(found)
        family = found[0].family
        for name in options.baselines:
            found.append(Line(name, [baseline(name, family, device)], family, "not trained"))
        splits = options.split or [split for split in ("train", "test", "ood") if split in family.splits]
        for split in splits:
            if split not in family.splits:
                raise ValueError(unknown("split", split, family.splits, f" of {type(family).__name__}"))
        folder = _out(options)
        comparison = compare(
            found, splits, options.tasks, options.rounds, options.seed, options.greedy, console, options.costly_tasks,
            options.repeats,
        )  # fmt: skip
        paths = comparison.save(folder)
        to_tensorboard(comparison, folder)
    except (ValueError, OSError) as mistake:
        print(f"metarl.compare: {in_words(mistake) if isinstance(mistake, OSError) else mistake}", file=sys.stderr)
        return 2
    for split in splits:
        for table in comparison.tables(split, console.width):
            show(console, table)
    _print_gaps(comparison, console)
    names = ", ".join(path.name for path in paths)
    console.print(f"Written to {folder}: {names}", markup=False, soft_wrap=True)
    console.print(f"Curves: tensorboard --logdir {shlex.quote(str(folder))}", markup=False, soft_wrap=True)
    return 0


def _out(options: Any) -> Path:
    """The folder for the files, made: what is asked for, or a new one."""
    if options.out is None:
        return new_folder(Path("runs") / f"comparison_{time.strftime('%Y%m%d-%H%M%S')}")
    make_folder(options.out)
    return Path(options.out)


def _print_gaps(comparison: Comparison, console: Console) -> None:
    text = comparison.markdown()
    for heading in ("## Generalisation gap", "## Training"):
        if heading in text:
            part = text[text.index(heading) :].partition("\n\n")[0]
            console.print(part.removeprefix("## "), markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    tune()
    sys.exit(main())
