"""Adaptation curves as TensorBoard runs of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_log import curve

from metarl.training.log.curve_runs import INTERVAL, RETURN, between, grid, write_curve
from metarl.training.runs import run


def read(folder: Path) -> dict[str, dict[int, float]]:
    events = EventAccumulator(str(folder)).Reload()
    return {tag: {each.step: each.value for each in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def test_the_grid_is_dense_and_holds_every_point():
    steps = np.array([0.0, 15.0, 30.0, 45.0, 9000.0])
    found = grid(steps)
    assert set(steps.astype(int)) <= set(found) and (np.diff(found) > 0).all() and len(found) > 60
    ratios = np.diff(np.log1p(found[found > 50]))
    assert ratios.max() < 0.15, "no gap on a logarithmic axis"


def test_values_lie_on_lines_between_the_points():
    steps, values = np.array([0.0, 9.0, 99.0]), np.array([0.0, 1.0, 3.0])
    assert between(steps, values, np.array([0, 9, 99])).tolist() == pytest.approx([0.0, 1.0, 3.0])
    (middle,) = between(steps, values, np.array([int(np.sqrt(10 * 100)) - 1]))
    assert middle == pytest.approx(2.0, abs=0.02), "half way on the logarithmic axis"
    assert between(steps, values, np.arange(100)).tolist() == sorted(between(steps, values, np.arange(100)))


def test_a_curve_is_written_with_its_interval(tmp_path: Path):
    made = curve(12)
    write_curve(tmp_path, made)
    found = read(tmp_path)
    low, high = made.interval()
    assert set(found) == {RETURN, f"{INTERVAL}/low", f"{INTERVAL}/high"}
    for point, step in enumerate(made.env_steps.astype(int)):
        assert found[RETURN][step] == pytest.approx(made.mean()[point], rel=1e-5)
        assert found[f"{INTERVAL}/low"][step] == pytest.approx(low[point], rel=1e-5)
        assert found[f"{INTERVAL}/high"][step] == pytest.approx(high[point], rel=1e-5)


def test_another_evaluation_takes_its_place(tmp_path: Path):
    for _ in range(2):
        write_curve(tmp_path, curve(12))
    assert len(list(tmp_path.glob("events*"))) == 1


def test_a_run_writes_its_curves(tmp_path: Path):
    made = run(
        "rl2_gridnavi", total_iterations=1, agent={"meta_batch_size": 8, "hidden_size": 8}, final_eval_tasks=6,
        run_dir=str(tmp_path / "run"), num_threads=1,
    )  # fmt: skip
    for split, found in made.curves.items():
        written = read(tmp_path / "run" / "adaptation" / split)
        assert written[RETURN][int(found.env_steps[-1])] == pytest.approx(found.mean()[-1], rel=1e-5)
