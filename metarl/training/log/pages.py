"""TensorBoard's pages of a run beside its scalars: custom scalars, and texts."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from metarl.core.family import TaskFamily
from metarl.evaluation.curve import AdaptationCurve
from metarl.report.card import length, short_space
from metarl.training.log.metrics import point_tags

OVERVIEW = {
    "return of an episode in training": r"train/return(_first|_last)?",
    "losses": r"loss/(policy|value|inference|surrogate_before|surrogate_after|adapted_distance)",
    "KL and clip fraction": r"loss/(approx_kl|kl_after|inner_kl|clip_fraction)",
    "entropy": r"loss/entropy",
    "gradient norm": r"loss/grad_norm",
    "explained variance": r"loss/explained_variance",
    "steps per second": r"time/steps_per_second",
    "memory, MB": r"time/(memory|device_memory)",
}
"""Further charts of the overview: title → pattern of tags, since agents log different tags."""


def family_card(family: TaskFamily) -> str:
    """Return the family's docstring with its lengths and spaces, for the page "Text"."""
    spaces = f"observation {short_space(family.observation_space)}, action {short_space(family.action_space)}"
    head = f"{type(family).__name__}: episode × trial {length(family)}, {spaces}"
    return f"{head}\n\n{inspect.cleandoc(type(family).__doc__ or '')}\n"


def layout(
    curves: Mapping[str, AdaptationCurve], tags: Iterable[str] = (), first: Sequence[str] = ()
) -> dict[str, dict[str, list[Any]]]:
    """Return the page "custom scalars": an overview, then for each split one chart of all points, and one per point.

    The overview has the adaptation on the splits `first`, and those charts of `OVERVIEW` that match any of `tags`.
    TensorBoard shares a chart between runs only if their descriptions are equal; hence no chart lists its points. It
    shows charts with an interval after the others and in reverse order; hence the last point comes first here.
    """
    written = list(tags)
    every = {split: _charts(curve) for split, curve in curves.items()}
    overview: dict[str, list[Any]] = {}
    for split in (split for split in first if split in every):
        chosen = dict.fromkeys(("all points", curves[split].labels[-1], curves[split].labels[0]))
        overview |= {f"{split}: {name}": every[split][name] for name in chosen}
    for title, names in OVERVIEW.items():
        if any(re.fullmatch(names, tag) for tag in written):
            overview[title] = ["Multiline", [rf"^{names}$"]]
    page = {"overview": overview} if overview else {}
    return page | {f"adaptation on {split}": charts for split, charts in every.items()}


def _charts(curve: AdaptationCurve) -> dict[str, list[Any]]:
    """Make one chart of all points, and one of each point with its interval, the last point first."""
    charts: dict[str, list[Any]] = {
        "all points": ["Multiline", [rf"^eval/{re.escape(curve.split)}/(episode|round)_\d+$"]]
    }
    for tag, point in reversed(point_tags(curve).items()):
        charts[curve.labels[point]] = ["Margin", [tag, f"{tag}_low", f"{tag}_high"]]
    return charts


def verbatim(text: str) -> str:
    """Indent a text to a block that TensorBoard's Markdown shows unchanged."""
    return "\n".join(f"    {line}" for line in text.splitlines())
