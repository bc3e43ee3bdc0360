"""Sample efficiency: interpolation, thresholds and areas by property; histories as runs write them; the program."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_comparison import curve as evaluation

from metarl.cli.compare import main
from metarl.cli.histories import read_comparison
from metarl.evaluation.curve import AdaptationCurve
from metarl.report.console import text_of
from metarl.report.efficiency.comparison import EfficiencyComparison
from metarl.report.efficiency.history import History, history, read_records, splits_of
from metarl.report.efficiency.panel import Panel
from metarl.report.efficiency.training_curve import TrainingCurve, common_range
from metarl.training.config.parsing import parse


def seed(steps, returns, final: AdaptationCurve | None = None, seconds=None) -> History:
    at, values = np.asarray(steps, dtype=np.float64), np.asarray(returns, dtype=np.float64)
    seconds = at / 100.0 if seconds is None else np.asarray(seconds, dtype=np.float64)
    return History("valid", at, seconds, values, values - 1.0, values + 1.0, final)


def curve_of(*seeds: History, name: str = "A", x: str = "train_steps") -> TrainingCurve:
    return TrainingCurve(name, seeds, x)


END = evaluation([[[0.0, 10.0], [0.0, 10.0]]], random=0.0, oracle=20.0, split="valid")
"""An evaluation at the end whose last point is 10."""


# ---- curves --------------------------------------------------------------------------------------------------------


def test_seeds_on_one_line_average_to_that_line():
    """Interpolation adds no error where the truth is linear, wherever the seeds were evaluated."""
    generator = np.random.default_rng(0)
    places = [np.sort(generator.uniform(0.0, 1000.0, 7)) for _ in range(3)]
    mean = curve_of(*(seed(at, 3.0 + 0.02 * at) for at in places))
    np.testing.assert_allclose(mean.mean(), 3.0 + 0.02 * mean.at, rtol=1e-12)
    low, high = mean.interval()
    np.testing.assert_allclose(low, high, rtol=1e-9, err_msg="seeds that agree leave nothing to estimate")
    assert mean.at[0] == max(at[0] for at in places) and mean.at[-1] == min(at[-1] for at in places)
    assert mean.area(mean.at[0], mean.at[-1]) == pytest.approx(3.0 + 0.02 * (mean.at[0] + mean.at[-1]) / 2)


def test_the_mean_at_common_steps_by_hand():
    mean = curve_of(seed([100, 200, 300], [0.0, 2.0, 4.0]), seed([100, 200, 300], [2.0, 4.0, 12.0]))
    np.testing.assert_array_equal(mean.at, [100, 200, 300])
    np.testing.assert_array_equal(mean.mean(), [1.0, 3.0, 8.0])
    low, high = mean.interval()
    # Two seeds, one degree of freedom: 12.706 times the standard error, half their difference.
    np.testing.assert_allclose(high - low, 2 * 12.706 * np.array([1.0, 1.0, 4.0]), rtol=1e-3)


def test_one_seed_has_the_recorded_points_and_intervals():
    only = curve_of(seed([100, 250], [1.0, 2.0]))
    np.testing.assert_array_equal(only.mean(), [1.0, 2.0])
    np.testing.assert_array_equal(only.interval(), [[0.0, 1.0], [2.0, 3.0]])
    assert only.interval_of() == "over tasks, of this agent"


def test_a_seed_that_has_ended_stays_as_it_is():
    short, long = seed([10, 20], [0.0, 10.0], END), seed([10, 40], [0.0, 10.0], END)
    both = curve_of(short, long)
    np.testing.assert_array_equal(both.at, [10, 20, 40])
    np.testing.assert_allclose(both.mean(), [0.0, (10.0 + 10.0 / 3) / 2, 10.0])
    running = curve_of(replace(short, final=None), long)
    np.testing.assert_array_equal(running.at, [10, 20], err_msg="nobody knows how a seed goes on that is not done")
    assert common_range([both, running]) == (10.0, 20.0) and common_range([both]) == (10.0, 40.0)
    with pytest.raises(ValueError, match="cannot be averaged"):
        curve_of(seed([1, 2], [0, 0]), seed([3, 4], [0, 0]))


def test_where_a_threshold_is_reached():
    rising = curve_of(seed([100, 200, 400], [0.0, 1.0, 5.0]))
    assert rising.to_reach(3.0) == (300.0, False) and rising.to_reach(1.0) == (200.0, False)
    assert rising.to_reach(-1.0) == (100.0, True) and rising.to_reach(6.0) is None
    # It counts when it is first reached, though it is lost again.
    assert curve_of(seed([0, 10, 20], [0.0, 2.0, 0.0])).to_reach(1.0) == (5.0, False)


def test_units_do_not_matter():
    """Returns and steps in other units: the same places and heights in those units."""
    steps, returns = np.array([100.0, 200.0, 500.0]), np.array([-3.0, 1.0, 2.0])
    plain, scaled = curve_of(seed(steps, returns)), curve_of(seed(7 * steps, 10 * returns - 4))
    for threshold in (-1.0, 0.5, 1.7):
        assert scaled.to_reach(10 * threshold - 4)[0] == pytest.approx(7 * plain.to_reach(threshold)[0])
    assert scaled.area(7 * 150.0, 7 * 900.0) == pytest.approx(10 * plain.area(150.0, 900.0) - 4)


def test_seconds_are_another_axis():
    by_time = curve_of(seed([100, 200], [0.0, 4.0], seconds=[1.0, 3.0]), x="time")
    assert by_time.to_reach(2.0) == (2.0, False)
    with pytest.raises(ValueError, match="no record of the seconds"):
        curve_of(seed([100, 200], [0.0, 4.0], seconds=[1.0, np.nan]), x="time")


# ---- panels --------------------------------------------------------------------------------------------------------


def test_the_scale_is_the_known_one_or_what_was_reached():
    known = Panel("F", "valid", (curve_of(seed([1, 2], [5.0, 10.0], END)),))
    assert known.scale[:2] == (0.0, 20.0) and known.bounds == {"oracle": 20.0, "random": 0.0}
    (row,) = known.rows()
    assert (row["last"], row["to_50"], row["to_50_or_before"], row["to_90"]) == (10.0, 2.0, False, None)
    curves = (curve_of(seed([10, 20], [5.0, 25.0])), curve_of(seed([10, 30], [6.0, 10.0]), name="B"))
    unknown = Panel("F", "valid", curves)
    assert unknown.scale[:2] == (5.0, 25.0) and "best" in unknown.scale.to_what
    best, other = unknown.rows()
    assert best["agent"] == "A" and best["to_90"] == pytest.approx(19.0) and other["to_50"] is None
    assert best["area_under_curve"] == pytest.approx(15.0) and other["area_under_curve"] == pytest.approx(7.0)
    assert Panel("F", "valid", (curve_of(seed([1, 2], [3.0, 3.0])),)).scale is None


def test_no_number_of_a_table_is_cut():
    names = ("rl2_half_cheetah_vel_with_a_long_name", "B")
    curves = tuple(curve_of(seed([12_345_678, 99_345_678], [-343.2, 10.0], END), name=name) for name in names)
    panel = Panel("HalfCheetahVel", "valid", curves)
    comparison = EfficiencyComparison([panel])
    shown = "".join(text_of(each, width=80) for each in comparison.tables(panel, 80))
    assert "…" not in shown and "99,345,678" in shown and all(len(line) <= 80 for line in shown.splitlines())
    assert shown.count(names[0]) == len(comparison.tables(panel, 80)) > 1
    assert "| steps to 90 % |" in comparison.markdown()


def test_families_are_panels_and_agents_keep_their_colours():
    a = Panel("A", "valid", (curve_of(seed([10, 20], [0.0, 9.0], END)), curve_of(seed([10, 900], [0, 9]), name="B")))
    b = Panel("B", "all", (curve_of(seed([10, 20], [0.0, 9.0]), name="B"),))
    figure = EfficiencyComparison([a, b]).figure()
    first, second = figure.axes
    shades = [{line.get_label(): line.get_color() for line in ax.lines} for ax in (first, second)]
    assert shades[0]["B"] == shades[1]["B"] != shades[0]["A"]
    assert first.get_xscale() == "log" and second.get_xscale() == "linear", "trainings of very unequal length"
    assert "known-task optimum" in shades[0] and "known-task optimum" not in shades[1]


def test_a_curve_that_is_level_has_a_picture():
    level = Panel("A", "valid", (curve_of(replace(seed([10], [0.0]), low=np.zeros(1), high=np.zeros(1))),))
    low, high = EfficiencyComparison([level]).figure().axes[0].get_ylim()
    assert low < 0.0 < high and level.scale is None


# ---- histories ------------------------------------------------------------------------------------------------------


def lines_of(*points: tuple[int, float], split: str = "valid", **more: Any) -> list[dict[str, Any]]:
    found = []
    for iteration, value in points:
        tags = {f"eval/{split}/{tag}": value for tag in ("episode_02", "episode_02_low", "episode_02_high")}
        tags |= {f"eval/{split}/{tag}": 0.0 for tag in ("episode_01", "episode_01_low", "episode_01_high")}
        record = {"iteration": iteration, "env_steps": 100 * iteration, "seconds": 2.0 * iteration}
        found.append(record | {"time/evaluate": 0.5} | tags | more)
    return found


def write(folder: Path, records: list[dict[str, Any]], end: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "metrics.jsonl").write_text(text + end, encoding="utf-8")
    return folder


def test_a_history_has_the_last_point_of_every_evaluation(tmp_path: Path):
    between = {"iteration": 2, "env_steps": 200, "seconds": 4.0, "train/return": 1.0}
    run = write(tmp_path / "run", [*lines_of((1, 5.0)), between, *lines_of((3, 7.0))], end='{"iteration": 4, "env')
    records = read_records(run)
    assert splits_of(records) == ["valid"] and len(records) == 3
    found = history(run, records, "valid")
    np.testing.assert_array_equal(found.train_steps, [100, 300])
    np.testing.assert_array_equal(found.returns, [5.0, 7.0])
    np.testing.assert_allclose(found.seconds, [1.5, 5.0], err_msg="evaluations do not count")
    assert found.final is None


def test_the_evaluation_at_the_end_is_the_last_point(tmp_path: Path):
    run = write(tmp_path / "run", lines_of((1, 5.0), (2, 6.0), (3, 7.0)))
    replace(END, training=({"seed": 1, "iteration": 3, "env_steps": 300},)).save(run / "evaluation" / "valid")
    found = history(run, read_records(run), "valid")
    np.testing.assert_array_equal(found.train_steps, [100, 200, 300])
    np.testing.assert_array_equal(found.returns, [5.0, 6.0, 10.0])
    assert found.final is not None and found.final.returns.shape == (1, 2, 2)


def test_a_run_that_has_gone_on_has_not_ended(tmp_path: Path):
    run = write(tmp_path / "run", lines_of((1, 5.0), (2, 6.0), (4, 12.0)))
    replace(END, training=({"seed": 1, "iteration": 3, "env_steps": 300},)).save(run / "evaluation" / "valid")
    found = history(run, read_records(run), "valid")
    np.testing.assert_array_equal(found.train_steps, [100, 200, 300, 400])
    np.testing.assert_array_equal(found.returns, [5.0, 6.0, 10.0, 12.0])
    assert found.final is None


def test_numbers_that_are_not_finite_are_left_out(tmp_path: Path):
    run = write(tmp_path / "run", lines_of((1, 5.0), (2, None), (3, 7.0)))  # nan is null in the file
    np.testing.assert_array_equal(history(run, read_records(run), "valid").train_steps, [100, 300])


@pytest.mark.parametrize("line", ['{"iteration": 1', "[]", "{}", '{"iteration": true, "env_steps": 1}', "[" * 5000])
def test_a_damaged_history_is_refused(line: str, tmp_path: Path):
    run = write(tmp_path / "run", lines_of((1, 5.0)), end=f"{line}\n")
    with pytest.raises(ValueError, match="is damaged: line 2"):
        read_records(run)


# ---- the program ---------------------------------------------------------------------------------------------------


@cache
def configuration() -> str:
    """The configuration that the runs are made from."""
    return parse(["--config=rl2_bernoulli_bandit_n10"]).text()


def make_run(folder: Path, seed: int = 1, splits: tuple[str, ...] = ("valid",), options: tuple[str, ...] = ()) -> Path:
    """A run's folder without an agent, as far as its history goes. `options` are lines of its configuration."""
    config = configuration()
    for option in (f"seed: {seed}", *options):
        config, found = re.subn(rf"(?m)^(\s*){option.split(':')[0]}: .*$", rf"\g<1>{option}", config)
        assert found == 1, option
    records = [lines_of((n, 4.0 + n + seed), split=splits[0])[0] for n in (1, 2, 3)]
    for split in splits[1:]:
        records = [record | lines_of((record["iteration"], 0.5), split=split)[0] for record in records]
    write(folder, records)
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds on a bandit with evaluations at the end, and other agents with evaluations on other splits."""
    folder = tmp_path_factory.mktemp("runs")
    for number in (1, 2):
        run = make_run(folder / "two" / f"seed_{number}", number)
        about = ({"seed": number, "iteration": 3, "env_steps": 300},)
        replace(END, training=about).save(run / "evaluation" / "valid")
    make_run(folder / "on_test", splits=("test",), options=("lr: 0.1",))
    make_run(folder / "on_both", splits=("valid", "test"), options=("lr: 0.2",))
    return folder


@pytest.mark.parametrize("x", ["train_steps", "time"])
def test_the_program_prints_and_writes(x: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    given = [f"ours={runs / 'two'}", str(runs / "on_both"), "--x", x, "--out", str(tmp_path)]
    assert main(given) == 0
    shown = capsys.readouterr().out
    assert "BernoulliBandit, valid" in shown and "ours" in shown and f"{x}.png" in shown
    (panel,) = json.loads((tmp_path / f"{x}.json").read_text("utf-8"))["panels"]
    rows = {row["agent"]: row for row in panel["agents"]}
    assert rows["ours"]["seeds"] == 2 and rows["ours"]["train_steps"] == 300 and rows["ours"]["seconds"] == 4.5
    assert rows["ours"]["points"]["at"] == ([100, 200, 300] if x == "train_steps" else [1.5, 3.0, 4.5])
    assert rows["ours"]["points"]["mean"] == [6.5, 7.5, 10.0] and rows["on_both"]["points"]["mean"] == [6, 7, 8]
    with (tmp_path / f"{x}.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["at_end"] for row in table if row["agent"] == "ours"] == ["0", "0", "1"] * 2
    assert (tmp_path / f"{x}.png").read_bytes().startswith(b"\x89PNG")
    tag = f"compare/valid/return_by_{x}"
    assert len(EventAccumulator(str(tmp_path / "ours")).Reload().Scalars(tag)) >= 3


def test_mistakes_are_one_sentence(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    ours, on_test, on_both = (str(runs / name) for name in ("two", "on_test", "on_both"))
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.yaml").write_bytes((runs / "on_test" / "config.yaml").read_bytes())
    cases = [
        ([ours, "pretrained:rl2_gridnavi"], "come without the metrics of their training"),
        ([str(bare)], "has no training history"),
        ([ours, on_test], "must share a split on which they were evaluated during training"),
        ([ours, on_both, "--split", "test"], "was not evaluated on 'test' during training, only on valid"),
        ([ours, "--split", "tset"], "was not evaluated on 'tset' during training, only on valid"),
        ([ours, "--split", "valid", "test"], "compares on one split, got valid, test"),
        ([ours, "--tasks", "3"], "--tasks is for agents that play"),
        ([ours, "--suite"], "--suite is for agents that play"),
        ([ours, "--baselines", "random"], "--baselines is for agents that play"),
        (["nowhere"], "There is no run directory 'nowhere'"),
    ]
    for given, sentence in cases:
        assert main([*given, "--x", "train_steps", "--out", str(tmp_path / "out")]) == 2
        said = capsys.readouterr().err
        assert sentence in said and len(said.strip().splitlines()) == 1, said
    assert not (tmp_path / "out").exists(), "nothing is written before all has been read"


def test_the_reported_split_comes_first(runs: Path):
    (panel,) = read_comparison([str(runs / "on_both")]).panels
    assert panel.split == "test" and panel.family == "BernoulliBandit"
    assert read_comparison([str(runs / "on_both"), str(runs / "two")]).panels[0].split == "valid", "that both have"


def test_seeds_are_one_line_and_other_tasks_another_panel(runs: Path, tmp_path: Path):
    more = make_run(tmp_path / "more_arms", options=("num_arms: 10",))
    elsewhere = make_run(tmp_path / "other_length", options=("episodes_per_trial: 5",))
    given = [f"A={runs / 'two' / 'seed_1'}", f"A={more}", f"A={runs / 'two' / 'seed_2'}", f"A={elsewhere}"]
    first, second = read_comparison(given).panels
    assert [(curve.name, len(curve.histories)) for curve in first.curves] == [("A", 2), ("A (2)", 1)]
    assert [curve.name for curve in second.curves] == ["A"], "the same name, so the same colour"
    assert "num_arms=5" in first.family and "num_arms=10" in second.family


def test_a_run_without_evaluations_is_refused(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = tmp_path / "silent"
    write(run, [{"iteration": 1, "env_steps": 5, "seconds": 1.0}])
    (run / "config.yaml").write_bytes((runs / "on_test" / "config.yaml").read_bytes())
    assert main([str(run), "--x", "train_steps"]) == 2
    assert "was not evaluated during training: train with eval_every above 0" in capsys.readouterr().err
