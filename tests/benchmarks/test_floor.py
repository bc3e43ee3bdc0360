"""What a step of training needs at least, held against what torch counts."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import floor, ours
from benchmarks.works import WORKS, resized


@pytest.mark.parametrize("name", ["W1", "W2", "W3ppo"])
def test_a_step_needs_the_products_that_training_makes(name: str):
    """Of RL² a little less is made: products with the empty memory of a trial's start are left out."""

    def in_place(total: Any, a: list[int], b: list[int], **_: Any) -> int:
        return 2 * math.prod(a) * b[-1]

    added = {torch.ops.aten.addmm_: in_place, torch.ops.aten.baddbmm_: in_place}  # torch knows them not
    work = WORKS[name]._replace(rows=4)
    train = ours.build(work, 1)
    with FlopCounterMode(display=False, custom_mapping=added) as counter:
        steps = train()
    assert counter.get_total_flops() / steps == pytest.approx(floor.operations(work), rel=0.08)


def test_the_table_says_what_share_of_the_peak_is_reached(tmp_path: Path):
    def entry(name: str, speed: float) -> dict[str, Any]:
        return {"title": WORKS[name].title, "contenders": {"metarl": {"steps_per_second": [speed]}}}

    path = tmp_path / "result.json"
    works = {"W1": entry("W1", 1e5), "W3": entry("W3", 1.0), "W5": entry("W5", 1e9), "W5:x": entry("W5", 1.0)}
    path.write_text(json.dumps({"works": works}))
    lines = floor.table([path], floor.Peak(operations=floor.operations(WORKS["W1"]) * 4e5, bytes=140e9)).splitlines()
    assert [line.split("|")[-2].strip() for line in lines[2:]] == ["25 %", "10 %"]


def test_the_peak_is_a_rate():
    peak = floor.measure(torch.device("cpu"), size=64, rounds=3)
    assert 1e6 < peak.operations < 1e16 and 1e6 < peak.bytes < 1e15


def test_a_resized_work_says_so():
    assert resized(WORKS["W1"], None, "cpu") == WORKS["W1"]
    work = resized(WORKS["W1"], 16384, "cuda")
    assert (work.rows, work.device) == (16384, "cuda") and work.title.endswith("16384 tasks")
    assert resized(WORKS["W5"], 8, "cpu").title.endswith("8 rows")
