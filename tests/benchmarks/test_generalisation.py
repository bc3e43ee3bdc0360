"""The study of generalisation: its table and figure from finished runs, without training any."""

import dataclasses

import numpy as np
import pytest
from small_families import Reach

from benchmarks import generalisation
from metarl.agents.random import RandomAgent
from metarl.evaluation.evaluator import evaluate


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Finished runs whose test score is 2 below that on their training tasks."""

    def trained(preset, count, seed, options, runs):
        folder = tmp_path / f"{preset}_{count}_{seed}"
        family = Reach()
        for split, lost in (("train", 0.0), ("test", 2.0)):
            curve = evaluate(RandomAgent(family), family, split, tasks=50)
            curve = dataclasses.replace(curve, returns=(np.full_like(curve.returns, 5.0) - lost / 2))
            curve.save(folder / "evaluation" / split)
        return folder

    monkeypatch.setattr(generalisation, "trained", trained)
    return tmp_path


def test_a_row_has_both_scores_and_their_difference(runs):
    row = generalisation.measure("preset", 5, [1, 2], (), runs)
    assert row["train"][0] == 10.0 and row["test"][0] == 8.0 and row["gap"][0] == pytest.approx(2.0)
    assert row["train_tasks"] == 5 and row["test_evaluated"] == 50 and row["seeds"] == 2


def test_the_figure_has_a_panel_for_each_family(runs):
    rows = [generalisation.measure("preset", count, [1, 2], (), runs) for count in (5, 50)]
    generalisation.draw({"A": rows, "B": rows}, runs / "figure.png")
    assert (runs / "figure.png").read_bytes().startswith(b"\x89PNG")
