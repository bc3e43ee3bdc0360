"""The comparison of RL²'s heads: its numbers, table and figure, from agents that were hardly trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import metarl
from benchmarks import hyper_heads
from benchmarks.hyper_heads import HEADS, STUDIES
from metarl.evaluation import stats
from metarl.training import runs as training
from metarl.training.config import parsing as config

TINY = {"meta_batch_size": 8, "num_minibatches": 1, "update_epochs": 1}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds with each kind of heads on GridNavi, after five iterations."""
    folder = tmp_path_factory.mktemp("runs")
    for first in HEADS.values():
        for seed in (2, 3):
            run = folder / f"{first}_gridnavi_{seed}"
            done = training.run(
                f"{first}_gridnavi", seed=seed, agent=TINY, total_iterations=5, eval_every=2, eval_tasks=21,
                final_eval_tasks=0, run_dir=run,
            )  # fmt: skip
            metarl.evaluate(done.agent, split="all", tasks=21, step_curve=False).save(run / "evaluation" / "all")
            (run / "evaluation" / "table.txt").touch()  # by which a run is known to be finished
    return folder


@pytest.fixture(scope="module")
def found(runs: Path) -> dict[str, Any]:
    return hyper_heads.study("gridnavi", [2, 3], runs)


@pytest.mark.parametrize("name", STUDIES)
def test_the_presets_differ_in_nothing_but_the_heads(name: str):
    plain, hyper = (config.read(f"{first}_{name}") for first in HEADS.values())
    fields = vars(plain.agent) | {"heads": "hyper"} | hyper_heads.EARLIER.get(name, {})
    assert vars(hyper.agent) == fields and plain.agent.heads == "plain"
    ours, theirs = (vars(one) | {"agent": None, "family": repr(one.family)} for one in (hyper, plain))
    assert ours == theirs


def test_the_curves_are_those_of_the_evaluations_in_between(runs: Path, found: dict[str, Any]):
    for heads, first in HEADS.items():
        training = found[heads]["training"]
        assert training["env_steps"] == [2 * 8 * 60, 4 * 8 * 60]
        files = [runs / f"{first}_gridnavi_{seed}" / "metrics.jsonl" for seed in (2, 3)]
        rows = [[json.loads(line) for line in file.read_text("utf-8").splitlines()] for file in files]
        scores = np.array([[row[n]["eval/all/score"] for n in (1, 3)] for row in rows])
        np.testing.assert_allclose(training["mean"], scores.mean(0))
        low, high = stats.interval(scores[:, None], every_task=True)
        np.testing.assert_allclose([training["low"], training["high"]], [low, high])


def test_the_difference_at_the_end_is_that_of_the_scores(found: dict[str, Any]):
    plain, hyper = (found[heads] for heads in HEADS)
    mean, low, high = found["difference"]
    assert mean == pytest.approx(hyper["score"][0] - plain["score"][0], abs=1e-4) and low < mean < high
    assert len(plain["by_seed"]) == 2 and found["split"] == "all"


def test_a_seed_without_a_history_is_left_out_of_the_curves(runs: Path, tmp_path: Path):
    both = [runs / f"rl2_gridnavi_{seed}" for seed in (2, 3)]
    alone = hyper_heads.over_training([both[0], tmp_path], "all")
    assert alone["by_seed"] == [hyper_heads.over_training(both, "all")["by_seed"][0]]
    assert hyper_heads.over_training([tmp_path], "all")["env_steps"] == []


def test_processor_time_is_relative_to_plain_heads():
    cost = hyper_heads.processor_time("gridnavi", tasks=8, iterations=2)
    assert cost["ratio"] == pytest.approx(cost["hyper"] / cost["plain"]) and cost["plain"] > 0.0


def test_the_program_writes_a_table_numbers_and_a_figure(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(hyper_heads, "processor_time", lambda name: {"plain": 1.0, "hyper": 1.5, "ratio": 1.5})
    given = ["--seeds", "2", "3", "--runs", str(runs), "--only", "gridnavi", "--out", str(tmp_path)]
    hyper_heads.main(given)
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.startswith("| GridNavi | ") and row.endswith("| × 1.50 |")
    said = json.loads((tmp_path / "hyper_heads.json").read_text("utf-8"))["gridnavi"]
    assert said["seeds"] == [2, 3] and said["hyper"]["training"]["env_steps"]
    assert (tmp_path / "hyper_heads.png").read_bytes().startswith(b"\x89PNG")
