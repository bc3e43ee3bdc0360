"""The ladder: its rungs, its scale and its page, from agents that were hardly trained."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import ladder, ladder_figure
from benchmarks.ladder import BELIEF, LEARNERS, RANDOM, RL2, SUBJECTS, TOLD, Found
from docs.make_results import between
from metarl.agents.reference.catalogue import baselines_for
from metarl.evaluation.curve import AdaptationCurve
from metarl.training import runs as training
from metarl.training.config import parsing as config

TINY = {"meta_batch_size": 8, "num_minibatches": 1, "update_epochs": 1}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of RL² and one of its control on GridNavi, after one iteration."""
    folder = tmp_path_factory.mktemp("runs")
    for preset, seed in (("rl2_gridnavi", 2), ("rl2_gridnavi", 3), ("memoryless_gridnavi", 2)):
        run = folder / f"{preset}_{seed}"
        training.run(
            preset, seed=seed, agent=TINY, total_iterations=1, eval_every=0, final_eval_tasks=0, run_dir=run
        )  # fmt: skip
        (run / "evaluation").mkdir()
        (run / "evaluation" / "table.txt").touch()  # by which a run is known to be finished
    return folder


@pytest.fixture(scope="module")
def found(runs: Path) -> Found:
    return ladder.gather("gridnavi", [2, 3], runs, tasks=30)


def test_everyone_plays_the_same_family():
    for name, subject in SUBJECTS.items():
        family = config.read(f"rl2_{name}").family
        assert subject.player is None or subject.player in baselines_for(family)
        for rung in LEARNERS:
            if (preset := ladder.preset_of(rung, name)) in config.presets():
                trained, first = config.read(preset), config.read(f"rl2_{name}")
                assert repr(trained.family) == repr(family), preset
                assert trained.train_split == first.train_split, preset


def test_what_is_there_is_gathered_and_what_is_missing_is_named(found: Found):
    assert list(found.curves) == [RANDOM, "no memory", RL2, "Bayes-optimal"]
    assert found.missing["no memory"] == "no finished run of memoryless_gridnavi with seed 3"
    assert found.missing["hyper-RL²"] == "no finished run of hyper_gridnavi with seed 2, 3"
    assert RL2 not in found.missing and len(found.curves[RL2].returns) == 2


def test_only_families_that_know_a_belief_have_its_rung():
    families = {name: config.read(name).family for name in ("rl2_gridnavi", "rl2_cartpole")}
    assert ladder.computable(BELIEF, families["rl2_gridnavi"], "all")
    assert not ladder.computable(BELIEF, families["rl2_cartpole"], "train")
    assert ladder.computable("VariBAD", families["rl2_cartpole"], "train")


def test_all_play_the_same_tasks_with_the_same_noise(found: Found):
    curves = list(found.curves.values())
    for other in curves[1:]:
        assert (other.split, other.eval_seed, other.repeats) == ("all", 0, curves[0].repeats)
        assert all(np.array_equal(curves[0].task_values[k], other.task_values[k]) for k in other.task_values)


def test_what_was_played_is_kept_until_the_run_is_newer(runs: Path, found: Found, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("played again")

    monkeypatch.setattr("metarl.evaluate", refuse)
    again = ladder.gather("gridnavi", [2, 3], runs, tasks=30)
    assert np.array_equal(again.curves[RL2].returns, found.curves[RL2].returns)
    checkpoint = runs / "rl2_gridnavi_2" / "checkpoint.safetensors"
    kept = runs / "ladder" / "rl2_gridnavi_2_all_30.json"
    os.utime(checkpoint, (kept.stat().st_mtime + 10,) * 2)
    with pytest.raises(AssertionError, match="played again"):
        ladder.gather("gridnavi", [2, 3], runs, tasks=30)
    os.utime(checkpoint, (kept.stat().st_mtime - 10,) * 2)


def test_missing_rungs_are_trained_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[str, int]] = []
    monkeypatch.setattr(ladder, "evaluated", lambda preset, seed, runs: asked.append((preset, seed)) or tmp_path)
    monkeypatch.setattr(ladder.checkpoint, "pretrained", lambda: ["pretrained:rl2_gridnavi"])
    assert ladder.run_of("hyper_gridnavi", 1, tmp_path, train=False) is None and not asked
    assert ladder.run_of("rl2_gridnavi", 1, tmp_path, train=False) == "pretrained:rl2_gridnavi"
    assert ladder.run_of("rl2_gridnavi", 2, tmp_path, train=False) is None
    assert ladder.run_of("hyper_gridnavi", 1, tmp_path, train=True) == tmp_path
    assert asked == [("hyper_gridnavi", 1)]


def test_random_play_is_0_and_the_bayes_optimal_player_1(found: Found):
    one = ladder.ladder("gridnavi", found)
    rungs = {row["rung"]: row for row in one["rungs"]}
    assert [row["rung"] for row in one["rungs"]][-1] == TOLD and one["one_is"] == "Bayes-optimal"
    assert rungs[RANDOM]["normalised"][0] == 0.0 and rungs["Bayes-optimal"]["normalised"][0] == 1.0
    assert rungs["Bayes-optimal"]["score"] == pytest.approx(37.214, abs=1e-3), "docs/results.md"
    assert rungs[TOLD]["normalised"][0] > 1.0 and rungs[TOLD]["low"] == rungs[TOLD]["high"]
    numbers = found.curves[RL2].summary()
    assert [rungs[RL2][field] for field in ("score", "low", "high")] == [
        numbers[name] for name in ("score", "score_low", "score_high")
    ]
    assert rungs[RL2]["less_rl2"] is None
    seeds = found.curves["no memory"].scores.mean() - found.curves[RL2].scores.mean()
    assert rungs["no memory"]["less_rl2"][0] == pytest.approx(seeds, rel=1e-5)


def test_where_no_optimum_is_known_the_best_untold_rung_is_1(found: Found):
    better = dataclasses.replace(found.curves[RL2], returns=found.curves[RL2].returns + 100.0)
    curves = {RANDOM: found.curves[RANDOM], RL2: better, "search along the arc": found.curves["Bayes-optimal"]}
    one = ladder.ladder("sparse_point_robot", Found(curves, {}))
    assert one["one_is"] == RL2 and one["rungs"][1]["normalised"][0] == 1.0


def test_a_family_without_an_oracle_has_no_told_rung(found: Found):
    curves = {name: dataclasses.replace(curve, oracle=None) for name, curve in found.curves.items()}
    assert [row["rung"] for row in ladder.ladder("gridnavi", Found(curves, {}))["rungs"]] == list(curves)


def test_the_record_keeps_what_was_measured_with_more_seeds(found: Found):
    subject = SUBJECTS["gridnavi"]
    one = ladder.ladder("gridnavi", found)
    record = copy.deepcopy(one) | {"missing": {}}
    rows = {row["rung"]: row for row in record["rungs"]}
    rows["no memory"] |= {"score": 1.0, "by_seed": [0.9, 1.0, 1.1]}  # of three seeds, now there is one
    rows[RL2] |= {"score": 2.0, "by_seed": [2.0]}  # of one seed, now there are two
    record["rungs"].append(rows[RL2] | {"rung": "VariBAD", "score": 3.0, "by_seed": [3.0]})
    joined = ladder.with_record(one, record, subject)
    by_rung = {row["rung"]: row["score"] for row in joined["rungs"]}
    assert list(by_rung) == [RANDOM, "no memory", RL2, "VariBAD", "Bayes-optimal", TOLD]
    assert by_rung["no memory"] == 1.0 and by_rung["VariBAD"] == 3.0
    assert by_rung[RL2] == pytest.approx(found.curves[RL2].summary()["score"])
    assert set(joined["missing"]) == {"hyper-RL²", BELIEF}
    above = {row["rung"]: row["less_rl2"] for row in joined["rungs"]}
    assert above["no memory"] is None and above["VariBAD"] is None, "they were above another RL²"
    same = ladder.with_record(one, one, subject)
    assert same == one and {row["rung"]: row["less_rl2"] for row in same["rungs"]}["no memory"] is not None


def test_the_program_writes_numbers_tables_and_a_figure(runs: Path, found: Found, tmp_path: Path, capsys: Any):
    given = ["--runs", str(runs), "--seeds", "2", "3", "--tasks", "30", "--only", "gridnavi", "--out", str(tmp_path)]
    ladder.main(given)
    assert "Missing: hyper-RL² (no finished run of hyper_gridnavi with seed 2, 3)." in capsys.readouterr().out
    said = json.loads((tmp_path / "ladder.json").read_text("utf-8"))["gridnavi"]
    assert said["tasks"] == 21 and [row["rung"] for row in said["rungs"]] == [*found.curves, TOLD]
    text = (tmp_path / "ladder.md").read_text("utf-8")
    assert "| GridNavi | Bayes-optimal | 37.21 | 1.00 |  |" in text and "Missing: VariBAD" in text
    assert (tmp_path / "ladder.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit) as refused:
        ladder.main([*given, "--docs"])
    assert refused.value.code == 2 and "--docs needs a complete ladder" in capsys.readouterr().err


def test_without_single_results_the_difference_is_that_of_the_seeds(found: Found):
    one = ladder.ladder("gridnavi", found)
    rows = {row["rung"]: row for row in one["rungs"]}
    rows["no memory"] |= {"less_rl2": None, "by_seed": [1.0, 2.0, 3.0]}
    rows[RL2]["by_seed"] = [11.0, 12.0, 13.0]
    told = {row["rung"]: row["less_rl2_unpaired"] for row in ladder.with_unpaired(one)["rungs"]}
    # Welch's interval would be 2.776 √(1/3 + 1/3) wide on each side, but none is narrower than that of one agent alone,
    # whose standard error √(1/3) has 2 degrees of freedom.
    width = 4.303 * 3**-0.5
    assert told["no memory"] == pytest.approx([-10.0, -10.0 - width, -10.0 + width], abs=1e-3)
    assert [rung for rung, numbers in told.items() if numbers] == ["no memory"]
    marked = ladder.markdown({"gridnavi": ladder.with_unpaired(one)})
    assert "-10.00 [-12.48, -7.52] ¹ |" in marked and "\n¹ Of the means of the seeds" in marked
    rows["no memory"]["by_seed"] = [1.0]
    assert "¹" not in ladder.markdown({"gridnavi": ladder.with_unpaired(one)})
    assert not any(row["less_rl2_unpaired"] for row in ladder.with_unpaired(one)["rungs"]), "one seed has no spread"


def test_the_page_has_a_place_for_figure_and_tables(found: Found, tmp_path: Path):
    page = (ladder.DOCS / "ladder.md").read_text("utf-8")
    assert between(page, "ladder", "here") != page
    (tmp_path / "images").mkdir()
    (tmp_path / "ladder.md").write_text(page, "utf-8")
    ladder.write_docs({"gridnavi": ladder.ladder("gridnavi", found)}, tmp_path)
    text = (tmp_path / "ladder.md").read_text("utf-8")
    assert "(images/ladder.png)" in text and "| GridNavi | RL² |" in text and (tmp_path / "images/ladder.png").exists()


def curve(value: float, spread: float) -> AdaptationCurve:
    array = value + spread * np.random.default_rng(0).standard_normal((3, 8, 1)).astype(np.float32)
    points = {"episodes": np.zeros(1), "env_steps": np.zeros(1), "labels": ("episode 1",)}
    bounds = {"random": np.zeros(8, np.float32), "oracle": np.full(8, 9.0, np.float32)}
    return AdaptationCurve(array, agent="A", family="F()", split="test", greedy=False, **points, **bounds)


def test_the_figure_shows_every_rung_with_its_return(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kept: list[Any] = []
    monkeypatch.setattr(ladder_figure.Figure, "savefig", lambda figure, *a, **k: kept.append(figure))
    curves = {RANDOM: curve(0.0, 1.0)} | {rung: curve(n + 1.0, 0.5) for n, rung in enumerate(LEARNERS)}
    one = ladder.ladder("tabular_mdp", Found(curves, {}))
    ladder_figure.draw({"a": one, "b": one, "c": one}, tmp_path / "x.png")
    panel = kept[0].axes[0]
    assert [label.get_text() for label in panel.get_yticklabels()] == [RANDOM, *LEARNERS, TOLD]
    texts = [text.get_text() for text in panel.texts]
    assert texts[0] == "0.000 [0.000, 0.000]" or texts[0] == "0.000"
    assert texts[-1].startswith("9.00") and len(set(map(ladder_figure.shade_of, [RANDOM, *LEARNERS, TOLD]))) == 7
    low, high = panel.get_xlim()
    assert low < 0.0 and high > 9.0 / 5.0
