"""The comparisons of in-context learners with exact limits: the same tasks for all, and figures of what was found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import pytest

from benchmarks import distillation, in_context


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[matplotlib.figure.Figure]:
    """The figures that were saved."""
    figures: list[matplotlib.figure.Figure] = []
    save = matplotlib.figure.Figure.savefig

    def keep(figure: matplotlib.figure.Figure, *args: Any, **options: Any) -> None:
        figures.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", keep)
    return figures


def lines_of(ax: Any) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in ax.get_lines()}


def test_the_distilled_agent_plays_the_goals_of_its_source(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], drawn: list[Any]
):
    monkeypatch.setattr(distillation, "EPISODES", dict.fromkeys(distillation.EPISODES, 3) | {"q_learning": 5})
    monkeypatch.setattr(distillation, "FIGURE", tmp_path / "distillation.png")
    monkeypatch.setattr(distillation, "PAGE", page := tmp_path / "page.md")
    page.write_text("Before.\n\n<!-- players -->\nold\n<!-- /players -->\n\nAfter.\n", encoding="utf-8")
    distillation.main(["--seeds", "1", "--runs", str(tmp_path), "--trials", "2", "--out", str(tmp_path), "--docs"])
    rows = json.loads((tmp_path / "distillation.json").read_text(encoding="utf-8"))
    assert [len(row["mean"]) for row in rows.values()] == [3, 5, 3, 3]
    for row in rows.values():
        np.testing.assert_allclose(np.mean(row["by_seed"], axis=0), row["mean"], atol=1e-3)
        assert (np.array(row["low"]) <= row["mean"]).all() and (np.array(row["high"]) >= row["mean"]).all()
        assert row["optimum"] == rows["AD"]["optimum"] > max(row["mean"])
    assert "| AD, trained on trials of 10 episodes |" in capsys.readouterr().out
    assert "old" not in page.read_text("utf-8") and "| PSRL: a goal kept" in page.read_text("utf-8")
    lines = lines_of(drawn[0].axes[0])
    assert all(lines[distillation.TITLES[player]] == row["mean"] for player, row in rows.items())


def test_the_record_of_the_published_table_is_what_the_figure_shows(tmp_path: Path, drawn: list[Any]):
    record = json.loads((in_context.RESULTS / "in_context.json").read_text(encoding="utf-8"))
    in_context.draw(record, tmp_path / "in_context.png")
    for ax, (name, rows) in zip(drawn[0].axes, record.items(), strict=True):
        assert ax.get_title() == in_context.PROBLEMS[name].title
        assert lines_of(ax) == {row["player"]: row["episodes"][0] for row in rows}
        for row in rows:
            total = np.sum(row["episodes"][0])
            assert total == pytest.approx(row["score"][0], rel=1e-3), "the points add up to the return of a trial"
