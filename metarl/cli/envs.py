"""The list of task families, and the card of one::

metarl envs                       a table of all
metarl envs GridNavi              the card of one, by its id or the name inside the id
metarl envs theirs.module:Class   of another project's family, registered or not
metarl envs --import theirs       the table with the families that a module registers
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from gymnasium import spaces
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from metarl.cli import usage
from metarl.report.card import Card, all_cards, card, find, length, load, short_space

WIDE = 150  # columns of a terminal in which every property has a column of its own


def program(arguments: Sequence[str]) -> int:
    """Run ``metarl envs …`` as the main program of this process."""
    return main(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program. Returns 0, or 2 after one sentence on standard error for a mistake of the user's."""
    options = usage.envs().read(arguments)
    name = options.family
    console = Console(highlight=False, force_terminal=None if sys.stdout.isatty() else False, force_jupyter=False)
    try:
        for module in options.modules:
            load(module)
        if name is None:
            cards, missing = all_cards()
            show_all(cards, console)
            for why, ids in missing.items():
                print(f"metarl envs: {', '.join(ids)} left out: {why}", file=sys.stderr)
        else:
            show_one(card(find(name)), console)
    except ValueError as mistake:
        print(f"metarl envs: {mistake}", file=sys.stderr)
        return 2
    return 0


def show_all(cards: list[Card], console: Console) -> None:
    """Show the table of all families. If piped, each family is one line of any length, for tools such as grep."""
    if not console.is_terminal:
        wide = Console(width=1000, highlight=False, force_terminal=False, force_jupyter=False)
        with wide.capture() as lines:
            wide.print(_table(cards, stacked=False, lines=None))
        console.file.write("".join(line.rstrip() + "\n" for line in lines.get().splitlines()))
        return
    console.print(_table(cards, stacked=console.width < WIDE, lines=box.SIMPLE_HEAD))
    console.print("Episode × trial: steps of an episode × episodes of a trial. One family: metarl envs NAME")


def _table(cards: list[Card], stacked: bool, lines: box.Box | None) -> Table:
    """Make a table with one row per family; `stacked` merges several properties per column, for narrow terminals."""
    rows = [
        (
            each.id,
            ", ".join(each.family.splits),
            length(each.family),
            short_space(each.family.observation_space),
            short_space(each.family.action_space),
            each.line,
        )
        for each in cards
    ]
    table = Table(box=lines, pad_edge=False, padding=(0, 2, int(stacked), 0))
    if stacked:
        table.add_column("id\nsplits", no_wrap=True)
        table.add_column("episode × trial\nobservation\naction", no_wrap=True)
        table.add_column("what it is")
        for id, splits, steps, observation, action, line in rows:
            left = Text.assemble((id, "bold"), "\n", (splits, "dim"))
            table.add_row(left, f"{steps}\n{observation}\n{action}", Text(line))
        return table
    for heading in ("id", "episode × trial", "observation", "action", "splits"):
        table.add_column(heading, no_wrap=True)
    table.add_column("what it is")
    for id, splits, steps, observation, action, line in rows:
        table.add_row(Text(id, "bold"), steps, observation, action, splits, Text(line))
    return table


def show_one(card: Card, console: Console) -> None:
    """Show a family's card: the values of the defaults, then the docstring's sections verbatim."""

    def say(text: str = "", style: str = "") -> None:
        console.print(Text(text, style), soft_wrap=True)

    say(card.id, "bold")
    say(card.summary)
    family = card.family
    say("\nDefaults", "bold")
    say(f"    {card.call}")
    say(f"    episode × trial {length(family)}: steps of an episode × episodes of a trial")
    say(f"    observation {_bounded(family.observation_space)}, action {_bounded(family.action_space)}")
    say(f"    splits {', '.join(family.splits)}")
    for heading, text in card.sections.items():
        say(f"\n{heading}", "bold")
        say("\n".join(f"    {line}".rstrip() for line in text.splitlines()))


def _bounded(space: spaces.Space[Any]) -> str:
    """Describe a space briefly, with its bounds if they are the same in all dimensions."""
    low, high = getattr(space, "low", None), getattr(space, "high", None)
    if low is None or high is None or low.min() != low.max() or high.min() != high.max():
        return short_space(space)
    return f"{short_space(space)} in [{low.min():g}, {high.max():g}]"
