"""An evaluation of how fast a trained agent adapts to tasks that it has not seen::

    metarl evaluate RUN_DIR [--split test] [--tasks 1000] [--greedy]
    metarl evaluate pretrained:rl2_gridnavi

The program prints a table and writes, per split, JSON, CSV and PNG files; for families that have measures next to the
return, such as an accuracy, also these. It does not change the evaluation at the end of a run.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from metarl.agents.family_extras import measures_for
from metarl.cli import usage
from metarl.core import rng
from metarl.core.agent import LearningAgent
from metarl.core.errors import check_counts, unknown
from metarl.evaluation.arguments import check_rounds, check_size
from metarl.evaluation.curve import combine
from metarl.evaluation.evaluator import evaluate
from metarl.evaluation.files import MEASURES, replace_file, to_json
from metarl.evaluation.results import not_finite
from metarl.fast.runtime import resolve_device, tune
from metarl.report.console import files_in, in_words, make_console, show, text_of
from metarl.report.table import adaptation_table, measures_line
from metarl.training.checkpoint import PRETRAINED, load, runs_of
from metarl.training.config.names import allow
from metarl.training.config.regular import check_regular
from metarl.training.lock import locked


def program(arguments: Sequence[str]) -> int:
    """Run ``metarl evaluate …`` as the main program of this process."""
    tune()
    return main(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program. Returns 0, or 2 after one sentence on standard error for a mistake of the user's."""
    options = usage.evaluate().read(arguments)
    console = make_console(options.quiet)
    try:
        allow(options.allow)
        agents = [load(run, str(resolve_device(options.device)), options.which) for run in runs_of(options.run)]
        splits = _check(options, agents[0])
        folder = options.out or _default_folder(options.run, _asked(options, agents))
        with files_in(folder), locked(folder, partial(console.print, markup=False, soft_wrap=True)):
            _evaluate(agents, splits, options, folder, console)
    except (ValueError, OSError) as mistake:
        print(f"metarl evaluate: {in_words(mistake) if isinstance(mistake, OSError) else mistake}", file=sys.stderr)
        return 2
    return 0


def _evaluate(
    agents: Sequence[LearningAgent], splits: Sequence[str], options: Any, folder: Path, console: Console
) -> None:
    """Evaluate the agents on each split; show the table, and write it and the curves to `folder`."""
    names = ("tasks", "repeats", "episodes", "rounds", "seed", "greedy")
    keywords = {name: getattr(options, name) for name in names}
    keywords["greedy"] = options.greedy or None  # without --greedy, the agent's default
    curves = {}
    with console.status("") as status:  # shown only on a terminal
        for split in splits:
            status.update(f"{options.tasks} tasks of {split}")
            curves[split] = combine([evaluate(agent, agent.family, split, **keywords) for agent in agents])
            curves[split].save(folder / (split + "_greedy" * options.greedy))
    table = adaptation_table(curves, console.width)
    show(console, table)
    for split, curve in curves.items():
        spoiled = not_finite(split, returns=curve.returns, random=curve.random, oracle=curve.oracle)
        if spoiled:
            print(f"metarl evaluate: warning: {spoiled}", file=sys.stderr)
    replace_file(folder / "table.txt", text_of(table))
    for split in splits:
        _measure(agents, split, options, folder, console)
    console.print(
        f"Written to {folder}: {', '.join(curves)}, each as .json, .csv and .png", markup=False, soft_wrap=True
    )


def _measure(agents: Sequence[LearningAgent], split: str, options: Any, folder: Path, console: Console) -> None:
    """Show and write the family's additional measures, if any, averaged over the agents."""
    import metarl.report.few_shot  # noqa: F401  (registers measures; slow to import, since it draws)

    measure = measures_for(agents[0].family)
    if measure is None:
        return
    every = [measure(agent, agent.family, split, options.tasks, options.seed, options.greedy) for agent in agents]
    found = {name: sum(each[name] for each in every) / len(every) for name in every[0]}
    console.print(measures_line(split, found), markup=False, highlight=False, soft_wrap=True)
    replace_file(folder / f"{split}{'_greedy' * options.greedy}{MEASURES}", to_json(found) + "\n")


def _check(options: Any, agent: LearningAgent) -> list[str]:
    """Return the splits to evaluate. Raises ValueError for invalid options, before the evaluation starts."""
    family = agent.family
    splits = options.split or list(family.splits)
    for split in splits:
        if split not in family.splits:
            raise ValueError(unknown("split", split, family.splits, where=f" of {type(family).__name__}"))
    check_counts(tasks=options.tasks, repeats=options.repeats, episodes=options.episodes, rounds=options.rounds)
    check_rounds(agent, options.rounds)
    rng.key(options.seed)
    for split in splits:
        check_size(family, split, options.tasks, options.repeats, options.episodes, options.rounds)
    return splits


def _asked(options: Any, agents: Sequence[LearningAgent]) -> str:
    """Name a folder by the options of the evaluation: ``last_2000_tasks_1000_seed_0_greedy``."""
    parts = [options.which, agents[0].trained.get("iteration", ""), "tasks", options.tasks, "seed", options.seed]
    for name in ("repeats", "episodes", "rounds"):
        if getattr(options, name) is not None:
            parts += [name, getattr(options, name)]
    name = "_".join(str(part) for part in [*parts, *["greedy"][: options.greedy]])
    return re.sub(r"[^\w.+-]", "_", name)  # text from the checkpoint must not form a path


def _default_folder(run: str, asked: str) -> Path:
    if run.startswith("pretrained:"):
        return Path("runs") / f"evaluation_{run.removeprefix('pretrained:')}" / asked
    if Path(run).resolve().is_relative_to(PRETRAINED.resolve()):  # do not write into the package
        return _default_folder(f"pretrained:{Path(run).resolve().name}", asked)
    check_regular(Path(run), to_write=True)  # with several seeds, the folder has not been checked yet
    return Path(run) / "evaluations" / asked
