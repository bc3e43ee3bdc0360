"""The figure of evolution strategies shows what the record says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from benchmarks import presets
from docs import es_figure, make_results
from docs.es_figure import PANELS, Panel

RECORD = json.loads(presets.RECORD.read_text(encoding="utf-8"))


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_a_panel_shows_the_points_of_the_record_and_their_intervals(panel: Panel):
    ax = Figure().add_subplot()
    es_figure.draw_panel(ax, panel, RECORD)
    lines = {str(line.get_label()): line for line in ax.lines}
    for (title, preset), band in zip(panel.presets.items(), ax.collections, strict=True):
        curve = RECORD[preset]["splits"]["test"]
        (label,) = [label for label in lines if label.startswith(f"{title}, ")]
        assert label == f"{title}, {RECORD[preset]['env_steps'] / 1e6:.0f} M environment steps of training"
        x, y = lines[label].get_data()
        assert list(x) == ([0, 1, 2, 3] if curve["rounds"] else [1, 5, 10, 50, 100])
        assert list(y) == [mean for _, mean, _, _ in curve["points"]]
        edges = {tuple(corner) for corner in band.get_paths()[0].vertices}
        assert {(at, end) for at, (_, _, *ends) in zip(x, curve["points"], strict=True) for end in ends} <= edges
        assert lines["random play"].get_ydata()[0] == curve["random"] / curve["episodes"]
        assert lines[panel.told].get_ydata()[0] == curve["oracle"] / curve["episodes"]
    assert len(lines) == len(panel.presets) + 2
    assert len({line.get_linestyle() for line in lines.values()}) == len(lines), "told apart without colours"


def test_an_optimum_that_is_not_known_has_no_line():
    panel = PANELS[1]
    unknown = {
        preset: {**RECORD[preset], "splits": {"test": {**RECORD[preset]["splits"]["test"], "oracle": None}}}
        for preset in panel.presets.values()
    }
    ax = Figure().add_subplot()
    es_figure.draw_panel(ax, panel, unknown)
    assert [line.get_label() for line in ax.lines][2:] == ["random play"]


def test_the_page_has_the_figure_that_the_script_makes(tmp_path: Path):
    es_figure.draw(RECORD, tmp_path / "es.png")
    shown = make_results.ROOT / make_results.ES_FIGURE
    with Image.open(tmp_path / "es.png") as new, Image.open(shown) as old:
        pixels = [np.asarray(image.convert("RGB"), dtype=float) for image in (new, old)]
        assert new.size == old.size, "run `python -m docs.make_results`"
    assert np.abs(pixels[0] - pixels[1]).mean() < 1.0, "run `python -m docs.make_results`"
    assert shown.stat().st_size < 60_000
