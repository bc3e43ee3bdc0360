"""The table of ensembles, and its record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
