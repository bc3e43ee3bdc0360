"""The lines of a comparison: trained agents on the same tasks, one line per configuration over all seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rich.console import Console
from rich.markup import escape

from metarl.agents.text import TextAgent
from metarl.core.agent import LearningAgent
from metarl.core.errors import short
from metarl.core.family import TaskFamily
from metarl.core.rollout import Agent
from metarl.evaluation.curve import AdaptationCurve, combine
from metarl.evaluation.evaluator import evaluate
from metarl.fast.runtime import resolve_device
from metarl.report.comparison import Comparison
from metarl.report.console import at_home
from metarl.report.suite import Suite
from metarl.training import checkpoint
from metarl.training.config.file import read_yaml

IRRELEVANT = {"seed", "run_dir", "device", "num_threads", "profile", "checkpoint_every", "allow"}


IRRELEVANT |= {"eval_every", "eval_tasks", "eval_repeats", "eval_splits", "final_eval_tasks"}


"""Fields of a configuration that may differ between the seeds of one experiment."""


class Line(NamedTuple):
    """One line of the comparison: the seeds of one configuration, or a baseline."""

    name: str
    agents: list[Agent]
    family: TaskFamily
    budget: str


def lines(runs: Sequence[str], device: str) -> list[Line]:
    """Load trained agents, one line for all runs of a configuration. Raises ValueError if a run cannot be loaded."""
    found: list[Line] = []
    for members in by_configuration(runs):
        agents = [checkpoint.load(folder, device) for _, folder in members]
        done = [[checkpoint.load_state(part)[1] for part in _parts(folder)] for _, folder in members]
        took = [one.seconds for parts in done for one in parts]
        seconds = f", {sum(took) / len(done):,.0f} s" if all(took) else ""
        steps = sum(one.env_steps for one in done[0])
        budget = f"{steps:,} environment steps of training{seconds}, {len(done)} seed(s)"
        name = unique(members[0][0], [line.name for line in found])
        found.append(Line(name, list(agents), agents[0].family, budget))
    return found


def by_configuration(runs: Sequence[str]) -> list[list[tuple[str, Path | str]]]:
    """Group (name, run) pairs by their configuration, ignoring the seed and fields that do not affect the agent.

    Raises ValueError if a folder holds no run.
    """
    groups: dict[str, list[tuple[str, Path | str]]] = {}
    for run in runs:
        name, folders = _folders(run)
        for folder in folders:
            files = [part / "config.yaml" for part in _parts(folder)]
            options = checkpoint.find(folder, ensembles=True) / checkpoint.ENSEMBLE
            values = [read_yaml(path) for path in (*files, *[options] * options.is_file())]
            same = yaml.safe_dump([{key: x for key, x in each.items() if key not in IRRELEVANT} for each in values])
            groups.setdefault(same, []).append((name, folder))
    return list(groups.values())


def _parts(run: str | Path) -> list[Path]:
    """Return the folder of a run, or the folders of an ensemble's members."""
    folder = checkpoint.find(run, ensembles=True)
    return checkpoint.members_of(folder) or [folder]


def _folders(run: str) -> tuple[str, list[Path | str]]:
    """Return the name of ``[NAME=]RUN`` and its run directories: one, or those in a folder of several seeds."""
    name, where = named_run(run)
    if where.startswith("pretrained:"):
        return name or where.removeprefix("pretrained:"), [where]
    folder = Path(where)
    name = name or folder.resolve().name
    several = sorted(path.parent for path in folder.glob("*/config.yaml"))
    if several and not any((folder / name).exists() for name in ("config.yaml", checkpoint.ENSEMBLE)):
        return name, list(several)
    return name, [folder]


def named_run(run: str) -> tuple[str, str]:
    """Split ``[NAME=]RUN`` into NAME ("" if there is none) and RUN, both of which may contain "=".

    If the whole text is an existing folder, it is a RUN. Otherwise NAME ends at the first "=" after which an existing
    folder begins.
    """

    def exists(where: str) -> bool:
        return where.startswith("pretrained:") or (where != "" and Path(where).is_dir())

    splits = [(run[:at], at_home(run[at + 1 :])) for at, letter in enumerate(run) if letter == "="]
    for at, (name, where) in enumerate([("", run), *splits]):
        if exists(where) and (name or at == 0):
            return name, where
    if run.startswith("=") or run.endswith("="):
        raise ValueError(f"[NAME=]RUN needs a name before the = and a run after it, got {short(run)}.")
    # No folder exists: split so that the error names the folder probably meant. Names contain no slash.
    return splits[0] if splits and "/" not in splits[0][0] else ("", run)


def unique(name: str, taken: Sequence[str]) -> str:
    """Return an unused name: the name itself, or with a number appended."""
    number = 2
    tried = name
    while tried in taken:
        tried, number = f"{name} ({number})", number + 1
    return tried


def check_families(found: Sequence[Line]) -> None:
    """Raise ValueError unless all agents have the same family and options; only episodes per trial may differ."""
    first = found[0]
    for line in found[1:]:
        same = type(line.family) is type(first.family)
        if not same or _options(line.family) != _options(first.family):
            raise ValueError(
                f"Agents must be for the same tasks: {first.name!r} is for {described(first.family)}, "
                f"{line.name!r} for {described(line.family)}."
            )


def _options(family: TaskFamily) -> dict[str, Any]:
    plain = {k: v for k, v in vars(family).items() if isinstance(v, (bool, int, float, str))}
    return {name: value for name, value in plain.items() if name != "episodes_per_trial"}


def described(family: TaskFamily) -> str:
    """Describe an agent's tasks: class and options of the family, without the episodes per trial."""
    return f"{type(family).__name__}({', '.join(f'{k}={v!r}' for k, v in _options(family).items())})"


def compare(
    found: Sequence[Line], splits: Sequence[str], tasks: int = 200, rounds: int | None = None, seed: int = 0,
    greedy: bool | None = None, console: Console | None = None, costly_tasks: int = 20, repeats: int | None = None,
) -> Comparison:  # fmt: skip
    """Evaluate every line on the same tasks. `rounds` is only for agents that adapt in rounds.

    Slow agents (such as PPO on each task) play only the first `costly_tasks` tasks. All agents play
    `repeats` trials on each task; by default as many as `metarl.evaluate` plays.
    """
    entries: dict[str, dict[str, AdaptationCurve]] = {}
    console = console or Console(quiet=True)
    with console.status("") as status:
        for line in found:
            for split in splits:
                number = min(tasks, costly_tasks) if line.agents[0].costly else tasks
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
    return Comparison(entries, {line.name: _spent(line) for line in found})


def _spent(line: Line) -> str:
    """Describe the training effort of a line's agents, and for text agents how they answered."""
    answers = [str(agent.answers) for agent in line.agents if isinstance(agent, TextAgent)]
    return "; ".join([line.budget, *answers])


def suite(runs: Sequence[str], options: Any, console: Console) -> Suite:
    """Evaluate ``NAME=RUN`` agents, each name on every family, on the split of `options` (default: test).

    Runs of one name and family are its training seeds. Raises ValueError as `lines` and `Suite` do.
    """
    agents: dict[str, dict[str, list[LearningAgent]]] = {}
    for run in runs:
        name, folders = _folders(run)
        for folder in folders:
            agent = checkpoint.load(folder, str(resolve_device(options.device)))
            agents.setdefault(described(agent.family), {}).setdefault(name, []).append(agent)
    split = (options.split or ["test"])[0]
    curves: dict[str, dict[str, AdaptationCurve]] = {}
    with console.status("") as status:
        for family, by_name in agents.items():
            for name, seeds in by_name.items():
                status.update(f"{name} on {family}")
                played = [
                    evaluate(
                        agent, agent.family, split, options.tasks, options.repeats,
                        rounds=_rounds(agent, options.rounds), seed=options.seed, greedy=options.greedy or None,
                    ) for agent in seeds
                ]  # fmt: skip
                curves.setdefault(family, {})[name] = combine(played)
    return Suite(curves)


def _rounds(agent: Agent, rounds: int | None) -> int | None:
    return rounds if agent.protocol.test().rounds > 1 else None
