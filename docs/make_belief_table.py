"""Make the list of beliefs in docs/algorithms/belief.md, from what the families say::

python -m docs.make_belief_table
"""

from __future__ import annotations

from pathlib import Path

import metarl
from docs.family_groups import GROUPS

PAGE = Path(__file__).parent / "algorithms" / "belief.md"
MARKS = ("<!-- beliefs -->", "<!-- /beliefs -->")
NONE = {
    "TreasureHunt": "a clue tells the goal from the mountain's top only; not written",
    "WallMaze": "mazes are drawn until they can be solved, which couples all cells",
    "Rulesets": "goals and rules are too many to list, and most of the room is out of sight",
    "Alchemy": "graph, stones and potions couple; an ideal observer exists as a reference player",
    "CartPole": "physical parameters, of which every step tells a little",
    "Pendulum": "physical parameters, of which every step tells a little",
    "Acrobot": "physical parameters, of which every step tells a little",
    "MountainCar": "physical parameters, of which every step tells a little",
    "MountainCarContinuous": "physical parameters, of which every step tells a little",
    "Sinusoid": "amplitude and phase are an integral without a closed form; least squares is a reference player",
    "FewShotDigits": "what a digit may look like is not known",
    "AntPos": "a distance along both axes, to a place in a square; not written",
    "Walker2dRandParams": "bodies of many parameters, of which every step tells a little",
    "HopperRandParams": "bodies of many parameters, of which every step tells a little",
}
"""Why a family has no belief."""
ELSEWHERE = ("Gym", "ML1", "ML10", "ML45", "MT10")
"""Families out of other packages, whose tasks are known to their simulators only."""


def kinds(name: str) -> dict[str, list[str]]:
    """Return the classes of a family's beliefs, each with the splits that have it."""
    family = metarl.make(f"metarl/{name}-v0")
    found: dict[str, list[str]] = {}
    for split in dict.fromkeys([*family.splits, "valid"]):
        belief = family.belief(split)
        if belief is not None:
            found.setdefault(type(belief).__name__, []).append(split)
    return found


def table() -> str:
    """Return the table: families with a belief first."""
    names = [name for group in GROUPS.values() for name in group.names if name not in ELSEWHERE]
    known = {name: kinds(name) for name in names}
    lines = ["| family | belief: splits |", "|---|---|"]
    for name in names:
        if known[name]:
            each = [f"`{kind}`: {', '.join(splits)}" for kind, splits in known[name].items()]
            lines.append(f"| {name} | {'; '.join(each)} |")
    lines += ["", "| family without | why |", "|---|---|"]
    lines += [f"| {name} | {NONE[name]} |" for name in names if not known[name]]
    return "\n".join(lines)


def page(text: str, made: str) -> str:
    """Return the page's text with the table between its marks."""
    before, rest = text.split(MARKS[0])
    return f"{before}{MARKS[0]}\n\n{made}\n\n{MARKS[1]}{rest.split(MARKS[1])[1]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), table()), encoding="utf-8")
