"""The help of ``metarl train``: every option of the run, and of the chosen agent and family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonargparse import ArgumentParser, set_parsing_settings

from metarl.core.options import add_arguments, parts_of
from metarl.report.console import ALLOW, EXIT_CODES, QUIET
from metarl.training.config.file import DEFAULT_PRESET, presets
from metarl.training.config.names import BASES, Named, names_of
from metarl.training.config.run_config import RESUMABLE, TrainConfig


def print_help(chosen: Mapping[str, Named]) -> None:
    """Print the help of every option, including those of the chosen agent and family."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    run_parts, described = parts_of(TrainConfig), {"task_sampler": "The choice of tasks to train on."}
    parser = ArgumentParser(
        prog="metarl train",
        description="Meta-train an agent on a task family and show how fast it adapts to tasks it has never seen.",
        epilog=f"{EXIT_CODES} Presets: {', '.join(presets())}.",
    )
    for option, value, text in (
        ("config", "FILE", f"A YAML file or a preset's name; without it, {DEFAULT_PRESET}."),
        ("print_config", "", "Print the whole configuration, which can be used as a file, and train nothing."),
        ("resume", "RUN_DIR", f"Continue the run in this folder exactly; may change: {', '.join(RESUMABLE)}."),
        ("auto_resume", "", "Start the run in --run_dir, continue it, or find it done: one command for requeued jobs."),
        ("seeds", "N", "Train N seeds from `seed` upwards, each in RUN_DIR/seed_N, and join their results."),
        ("quiet", "", QUIET),
        ("allow", "PACKAGE", ALLOW),
        ("family", "NAME", "The task family: a registered id, or the name inside it."),
        ("agent", "NAME", f"The agent: {', '.join(names_of('agent'))}, or another registered name."),
        *((name, "NAME", f"{described[name]} Names: {', '.join(parts.kinds)}.") for name, parts in run_parts.items()),
    ):
        how: dict[str, Any] = {"metavar": value} if value else {"action": "store_true"}
        parser.add_argument(f"--{option}", help=text, **how)
    parser.add_class_arguments(TrainConfig, None, instantiate=False, skip={*BASES, *run_parts, "allow"})
    parser.print_help()
    for name, named in chosen.items():
        part = ArgumentParser(usage="", add_help=False)
        add_arguments(part, named.factory, name, skip={*parts_of(named.factory)})
        print(f"\nOptions of this {name}, {named.short} (another one's: --{name} NAME --help):")
        lines = part.format_help().splitlines()[1:]
        config = (f"  --{name} CONFIG", f"{'':24}Path to a configuration file.")
        print("\n".join(line for line in lines if not line.startswith(config)))
