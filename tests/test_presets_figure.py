"""The figure of all presets: scores between random play and the optimum."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image
from test_log import curve

from benchmarks import presets
from metarl.colours import colour


def dot(preset: str, **changes: object) -> presets.Dot:
    values = {"first": 1.0, "score": 2.0, "low": 1.5, "high": 2.5, "random": 0.0, "optimum": 4.0}
    return presets.Dot(preset, **{"about": "Family, test", **values, **changes})  # type: ignore[arg-type]


def test_a_dot_is_the_normalised_score_of_the_curve():
    for found in (curve(3), curve(3, rounds=True)):
        numbers = found.summary()
        made = presets.dot("rl2_x", numbers, found.labels, found.family, found.split, found.rounds)
        assert made.normalised(made.score) == pytest.approx(numbers["normalised"], abs=1e-6)
        assert made.normalised(made.random) == 0.0 and made.normalised(made.optimum) == 1.0
        assert made.low < made.score < made.high and made.first == pytest.approx(found.mean()[0])


def test_presets_without_an_optimum_stand_apart_in_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kept: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: kept.append(figure))
    dots = [dot("rl2_worse", score=1.0), dot("maml_better", score=3.0), dot("ppo_unknown", optimum=None)]
    presets.draw(dots, tmp_path / "x.png", "a note")
    upper, lower = kept[0].axes
    assert [label.get_text().split()[0] for label in upper.get_yticklabels()] == ["maml_better", "rl2_worse"]
    drawn = {line.get_color(): line.get_xdata() for line in upper.lines if len(line.get_xdata()) == 1}
    assert drawn[colour("maml")][0] == 0.75 and drawn[colour("rl2")][0] == 0.25
    texts = [text.get_text() for text in lower.texts]
    assert "ppo_unknown" in texts and "2.00 [1.50, 2.50]" in texts and "rl2_worse" not in texts
    presets.draw(dots[:2], tmp_path / "x.png", "a note")
    assert len(kept[1].axes) == 1, "no table where all have a scale"


def test_the_agents_of_the_package_are_drawn(tmp_path: Path):
    shown = presets.shipped(presets.config.presets())
    assert len(shown) >= 30 and {d.preset for d in shown} <= set(presets.config.presets())
    assert all(-1.5 < d.normalised(d.score) < 1.2 for d in shown if d.has_scale)
    presets.draw(shown, tmp_path / "presets.png", "one seed each")
    with Image.open(tmp_path / "presets.png") as image:
        assert image.width == 900 and image.height > 600
