"""One colour per kind of agent, the same in every figure; the optimum is black, random play is grey."""

from __future__ import annotations

from collections.abc import Iterable

OPTIMUM, RANDOM = "black", "#8a8a8a"


KINDS = {
    "memoryless": "#9c755f",
    "recurrentsac": "#b6992d",
    "recurrent": "#76b7b2",
    "sac": "#b6992d",
    "td3": "#8c6d31",
    "r2d2": "#499894",
    "pearl": "#d45087",
    "es": "#665191",
    "dpt": "#6f9e00",
    "dagger": "#c85200",
    "ad": "#5fa2ce",
    "rl2": "#4e79a7",
    "hyper": "#7b5ea7",
    "varibad": "#d1495b",
    "belief": "#00798c",
    "exactbelief": "#00798c",
    "maml": "#f28e2b",
    "fomaml": "#edc948",
    "anil": "#b07aa1",
    "metasgd": "#d37295",
    "promp": "#e15759",
    "reptile": "#86bcb6",
    "ppo": "#59a14f",
    "sb3": "#59a14f",
    "random": RANDOM,
    "oracle": OPTIMUM,
    "optimum": OPTIMUM,
    "bayes": "#2f4b7c",
    "gittins": "#2f4b7c",
    "thompson": "#a05195",
}
"""Colours by the prefix of an agent's name, in lower case and without punctuation."""


OTHERS = ("#17becf", "#bcbd22", "#7f3c8d", "#11a579", "#3969ac", "#e68310", "#008695", "#cf1c90", "#f97b72", "#4b4b8f")
"""Colours for agents with other names, and for a second agent of a kind in the same figure."""


def colour(agent: str) -> str:
    """Return the colour for an agent's name: that of its kind, otherwise one of `OTHERS`, always the same one."""
    plain = "".join(letter for letter in agent.lower().replace("²", "2") if letter.isalnum())
    for kind, shade in KINDS.items():
        if plain.startswith(kind):
            return shade
    return OTHERS[sum(plain.encode()) % len(OTHERS)]


def colours(agents: Iterable[str]) -> dict[str, str]:
    """Return distinct colours for the agents of one figure; the first agent of a kind gets the kind's colour.

    Colours repeat if there are more agents than colours.
    """
    chosen: dict[str, str] = {}
    for agent in agents:
        shade = colour(agent)
        free = [other for other in (shade, *OTHERS, *KINDS.values()) if other not in (*chosen.values(), OPTIMUM)]
        chosen[agent] = shade if shade not in chosen.values() else next(iter(free), shade)
    return chosen
