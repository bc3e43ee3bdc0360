"""The soak: its line through the memory, its table, and one short round of kills."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import soak


def samples(slope: float, noise: float = 0.5) -> list[soak.Sample]:
    """An hour of a process that grows by `slope` MB."""
    draw = np.random.default_rng(1)
    at = np.arange(0.0, 3600.0, 5.0)
    return [soak.Sample(t, 400.0 + slope * t / 3600 + noise * draw.normal(), 10, 4) for t in at]


@pytest.mark.parametrize(("slope", "flat"), [(0.0, True), (10.0, False), (-10.0, False)])
def test_a_slope_is_told_from_noise(slope: float, flat: bool):
    found = soak.memory_result(samples(slope), 60.0)
    assert found["flat"] is flat and found["slope"] == pytest.approx(slope, abs=0.5)
    assert found["files"] == found["threads"] == 0


def test_files_that_stay_open_are_seen_and_too_few_samples_are_refused():
    leaking = [one._replace(files=10 + int(one.seconds / 600)) for one in samples(0.0)]
    assert soak.memory_result(leaking, 60.0)["files"] == 3
    with pytest.raises(ValueError, match="at least 24 samples, got 3"):
        soak.line([1.0, 2.0, 3.0], [1.0, 1.0, 1.0])


def result(**kills: Any) -> dict[str, Any]:
    done = {"starts": 5, "signals": {"SIGKILL": 3, "SIGINT": 1}, "finished": 1, "left_behind": 0, "wrong": []} | kills
    return {"kills": done, "memory": soak.memory_result(samples(0.0), 60.0)}


def test_the_table_says_what_held():
    good, bad = result(), result(wrong=["RL²_1 differs in tensors"])
    assert soak.good(good) and not soak.good(bad) and not soak.good(result(finished=0))
    lines = soak.table({"agents": {"RL²": good, "PPO": bad}}).splitlines()
    assert lines[2].startswith("| RL² | 5 | 3, 0, 1 | 1 | 1 |") and lines[2].endswith("| yes |")
    assert lines[3].startswith("| PPO | 5 | 3, 0, 1 | 1 | 0 |") and lines[3].endswith("| no |")
    assert lines[4] == "- PPO: RL²_1 differs in tensors"


@pytest.mark.slow
def test_a_killed_run_is_resumed_until_it_is_the_uninterrupted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(soak.CASES, "RL²", (*soak.CASES["RL²"], "--agent.meta_batch_size=8"))
    kills = soak.Kills("RL²", tmp_path, random.Random(1), iterations=8)
    while not kills.finished:
        kills.once()
    found = kills.result()
    assert found["wrong"] == [] and found["left_behind"] == 0 and found["starts"] >= sum(found["signals"].values())
    name = tmp_path / "RL²_1" / "metrics.jsonl"
    name.write_text(name.read_text().replace("train/return", "train/other"))
    assert soak.content(tmp_path / "RL²_1")["metrics"] != kills.twin["metrics"]
