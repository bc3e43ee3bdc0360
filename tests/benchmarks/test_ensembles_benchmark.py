"""The table and the figure of ensembles, and their record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from benchmarks import ensembles


def result(score: float) -> dict[str, Any]:
    return {
        "returns": [
            {"player": "members", "score": [score, score - 1.0, score + 1.0], "more": None},
            {"player": "uniform, each step", "score": [score, score, score], "more": [0.5, 0.25, 0.75]},
        ],
        "uncertainty": {"disagreement": [0.1, 0.2], "failed": [0.1, 0.4], "auroc": [0.9, 0.8, 1.0]},
    }


def test_presets_that_are_not_asked_for_keep_their_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first, second = list(ensembles.PRESETS)[:2]
    stored = {first: result(1.0), second: result(2.0)}
    (tmp_path / "ensembles.json").write_text(json.dumps({"presets": stored}), encoding="utf-8")
    monkeypatch.setattr(ensembles, "RESULTS", tmp_path)
    monkeypatch.setattr(ensembles, "members_of", lambda preset, seeds, runs: [preset] * len(seeds))
    monkeypatch.setattr(ensembles, "returns", lambda members, split, tasks: result(5.0)["returns"])
    monkeypatch.setattr(ensembles, "uncertainty", lambda members, split, tasks: result(5.0)["uncertainty"])
    ensembles.main(["--only", second, "--seeds", "1", "2", "--tasks", "30"])
    found = json.loads((tmp_path / "ensembles.json").read_text(encoding="utf-8"))["presets"]
    assert found[first] == stored[first]
    assert found[second] == {"split": ensembles.PRESETS[second], "seeds": [1, 2], "tasks": 30, **result(5.0)}
    page = ensembles.as_tables(found)
    assert f"| `{first}` | members | 1.00 [0.000, 2.00] |" in page
    assert f"| `{second}` | uniform, each step | 5.00 [5.00, 5.00] | 0.500 [0.250, 0.750] |" in page


def test_auroc_is_the_share_of_pairs_in_the_right_order():
    values, fails = np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True])
    pairs = [(0.4, 0.1, 1.0), (0.4, 0.4, 0.5), (0.8, 0.1, 1.0), (0.8, 0.4, 1.0)]
    assert ensembles.auroc(values, fails) == pytest.approx(sum(won for *_, won in pairs) / len(pairs))
    assert np.isnan(ensembles.auroc(values, np.zeros(4, dtype=bool)))


def heights(ax: Any) -> list[list[list[float]]]:
    """The mean, low and high of each point of each group of error bars in an axes, along y."""
    found = []
    for bars in ax.containers:
        middle, _, (ends,) = bars.lines
        spans = [sorted(segment[:, 1]) for segment in ends.get_segments()]
        found.append([[y, *span] for y, span in zip(middle.get_ydata(), spans, strict=True)])
    return found


def test_the_figure_shows_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kept: list[Figure] = []
    monkeypatch.setattr(ensembles, "write", lambda figure, path: kept.append(figure))
    found = json.loads((ensembles.RESULTS / "ensembles.json").read_text(encoding="utf-8"))["presets"]
    ensembles.draw(found, tmp_path / "x.png")
    *panels, last = kept[0].axes
    for ax, (preset, of) in zip(panels, found.items(), strict=True):
        assert ax.get_title().replace("\n", ", ") == ensembles.title(preset)
        weights = [label.get_text() for label in ax.get_xticklabels()]
        assert weights == ["uniform", "hedge", *["likelihood"] * (preset == "varibad_gridnavi")]
        more = {row["player"]: row["more"] for row in of["returns"]}
        for mix, shown in zip(ensembles.MIXES, heights(ax), strict=True):
            assert np.allclose(shown, [more[f"{each}, each {mix}"] for each in weights])
    (bars,) = last.containers
    middle, _, (ends,) = bars.lines
    shown = [[x, *sorted(segment[:, 0])] for x, segment in zip(middle.get_xdata(), ends.get_segments(), strict=True)]
    assert np.allclose(shown, [of["uncertainty"]["auroc"] for of in found.values()])
    assert [label.get_text() for label in last.get_yticklabels()] == [ensembles.title(preset) for preset in found]
    assert last.lines[-1].get_xdata()[0] == 0.5


def test_without_a_preset_the_page_is_made_from_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    record, page, figure = tmp_path / "ensembles.json", tmp_path / "page.md", tmp_path / "x.png"
    for name, path in {"RESULTS": tmp_path, "PAGE": page, "FIGURE": figure}.items():
        monkeypatch.setattr(ensembles, name, path)
    with pytest.raises(SystemExit):
        ensembles.main(["--only", "--docs"])
    assert "--only needs a preset, as there is no ensembles.json" in capsys.readouterr().err
    first = next(iter(ensembles.PRESETS))
    record.write_text(json.dumps({"presets": {first: result(1.0)}}), encoding="utf-8")
    page.write_text("<!-- ensembles -->\n\n<!-- /ensembles -->\n", encoding="utf-8")
    ensembles.main(["--only", "--docs"])
    assert f"| `{first}` | members | 1.00 [0.000, 2.00] |" in page.read_text(encoding="utf-8")
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert json.loads(record.read_text(encoding="utf-8"))["presets"] == {first: result(1.0)}
