"""The tables of results say what the record says, and the figure of all presets shows it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image
from test_log import curve

from benchmarks import presets
from docs import make_bench, make_results, presets_figure
from docs.presets_figure import Dot
from metarl.evaluation.drawing.colours import colour
from metarl.training.config import parsing as config

RECORD = json.loads(presets.RECORD.read_text(encoding="utf-8"))


def test_every_preset_has_its_results():
    assert set(RECORD) == set(config.presets()) - set(presets.NOT_MEASURED)
    gradients = {name for name, entry in RECORD.items() if "gradient step" in entry["splits"]["train"]["points"][0][0]}
    assert set(make_results.GRADIENTS) == gradients
    assert set(make_results.MEMORY) == {name for name in RECORD if name.startswith(("rl2_", "memoryless_"))}
    kinds = (*make_results.BELIEFS, *make_results.REPLAY, *make_results.OTHERS)
    others = make_results.of_kind(RECORD, kinds)
    assert len({*others}) == len(others) and not {*others} & gradients
    alone = {name for name in RECORD if name.startswith(("ppo_", "recurrent_ppo_"))}
    assert {*make_results.MEMORY, *gradients, *others} | alone == set(RECORD), "each has its table"


def test_what_is_known_of_a_problem_is_known_for_every_agent():
    curve = {"oracle": 44.0, "by_seed": [36.0]}
    assert make_results.known("varibad_gridnavi", curve) == make_results.KNOWN["rl2_gridnavi"]
    assert make_results.known("robust_plr_wall_maze", curve) == "44.00 known task"
    assert make_results.known("ppo_gridnavi", curve) == "44.00 known task"


def test_rows_have_a_cell_for_each_column():
    for made in (make_results.gradient_table(RECORD), make_results.memory_table(RECORD), make_results.splits(RECORD)):
        for table in re.findall(r"(?:^\|.*\n?)+", made, re.MULTILINE):
            assert len({line.count(" | ") for line in table.splitlines()[:1] + table.splitlines()[2:]}) == 1, table


@pytest.mark.parametrize("path", list(make_results.documents(RECORD)), ids=lambda path: path.name)
def test_what_is_printed_is_what_the_record_says(path: Path):
    assert path.read_text(encoding="utf-8") == make_results.documents(RECORD)[path], (
        "make it anew: python -m docs.make_results"
    )


@pytest.mark.parametrize("preset", config.presets())
def test_a_header_says_once_what_is_reached(preset: str):
    """What somebody typed there before would stay beside what the record says."""
    text = (make_results.ROOT / make_results.CONFIGS / f"{preset}.yaml").read_text(encoding="utf-8")
    header = " ".join(line for line in text.splitlines() if line.startswith("#"))
    assert header.count("Reached") == 1 and "bootstrap" not in header
    assert ("Reached: not measured yet" in header) is (preset in presets.NOT_MEASURED)


def test_the_record_keeps_what_a_curve_says():
    for found in (curve(12), curve(3, rounds=True)):
        kept, numbers = presets.summary(found), found.summary()
        assert [kept["score"], kept["low"], kept["high"]] == [
            numbers[name] for name in ("score", "score_low", "score_high")
        ]
        assert kept["oracle"] == pytest.approx(numbers["oracle"] * (1 if found.rounds else len(found.labels)))
        assert kept["points"][0][1] == pytest.approx(found.mean()[0])
        assert kept["points"][-1][0] == found.labels[-1] and len(kept["points"]) <= presets.POINTS


def test_a_header_is_put_in_place_of_the_former_and_again():
    text = "# What it is.\n# Reached: old\n# words. More.\nfamily: x\n"
    once = make_results.with_header(text, "Reached: " + "new words " * 20)
    lines = once.splitlines()
    assert lines[0] == "# What it is." and lines[-1] == "family: x" and "old" not in once
    assert len(lines) == 4 and all(len(line) <= 120 for line in lines)
    assert make_results.with_header(once, "Reached: " + "new words " * 20) == once
    assert make_results.with_header("# Title.\na: 1\n", "Reached: x.") == "# Title.\n# Reached: x.\na: 1\n"


def test_what_is_not_known_is_called_so():
    assert make_results.number(None) == make_results.number(float("nan")) == "unknown"
    page = (make_results.ROOT / make_results.PAGE).read_text(encoding="utf-8")
    assert "unknown" in page and " nan" not in page.lower()


def test_a_table_needs_its_place():
    with pytest.raises(ValueError, match="no place for a table: <!-- x -->"):
        make_results.between("nothing here", "x", "| a |")


def dot(preset: str, **changes: object) -> Dot:
    values = {"first": 1.0, "score": 2.0, "low": 1.5, "high": 2.5, "random": 0.0, "optimum": 4.0}
    return Dot(preset, **{"about": "Family, test", **values, **changes})  # type: ignore[arg-type]


def test_a_dot_is_the_normalised_score_of_the_curve():
    for found in (curve(3), curve(3, rounds=True)):
        (made,) = presets_figure.dots({"rl2_x": {"target": "test", "splits": {"test": presets.summary(found)}}})
        assert made.normalised(made.score) == pytest.approx(found.summary()["normalised"], abs=1e-6)
        assert made.normalised(made.random) == 0.0 and made.normalised(made.optimum) == 1.0
        assert made.low < made.score < made.high and made.first == pytest.approx(found.mean()[0])


def test_presets_without_an_optimum_stand_apart_in_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kept: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: kept.append(figure))
    dots = [dot("rl2_worse", score=1.0), dot("maml_better", score=3.0), dot("ppo_unknown", optimum=None)]
    presets_figure.draw(dots, tmp_path / "x.png", "a note")
    upper, lower = kept[0].axes
    assert [label.get_text().split()[0] for label in upper.get_yticklabels()] == ["maml_better", "rl2_worse"]
    drawn = {line.get_color(): line.get_xdata() for line in upper.lines if len(line.get_xdata()) == 1}
    assert drawn[colour("maml")][0] == 0.75 and drawn[colour("rl2")][0] == 0.25
    texts = [text.get_text() for text in lower.texts]
    assert "ppo_unknown" in texts and "2.00 [1.50, 2.50]" in texts and "rl2_worse" not in texts
    presets_figure.draw(dots[:2], tmp_path / "x.png", "a note")
    assert len(kept[1].axes) == 1, "no table where all have a scale"


def test_all_presets_are_drawn(tmp_path: Path):
    shown = presets_figure.dots(RECORD)
    assert all(-1.5 < d.normalised(d.score) < 1.2 for d in shown if d.has_scale)
    presets_figure.draw(shown, tmp_path / "presets.png", "a note")
    with Image.open(tmp_path / "presets.png") as image:
        assert image.width == 900 and image.height > 600


def test_the_leaderboard_says_what_the_stored_results_say():
    page = make_bench.DOCS / "bench.md"
    assert page.read_text(encoding="utf-8") == make_bench.document(), "make it anew: python -m docs.make_bench"
