"""The speed of Gymnasium environments as families is measured, and the page says what the record says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import adapter


def test_every_contender_steps():
    found = adapter.measure("CartPole-v1", 2, rounds=1, seconds=0.01)
    assert found.keys() == adapter.CONTENDERS.keys()
    assert all(len(speeds) == 1 and speeds[0] > 0 for speeds in found.values())


def test_a_speed_counts_the_steps_of_rows():
    calls: list[int] = []
    assert adapter.speed(lambda: calls.append(1), 8, seconds=0.05) == pytest.approx(8 * len(calls) / 0.05, rel=0.5)


@pytest.mark.parametrize("env", adapter.CASES)
def test_a_case_is_a_family(env: str):
    made = adapter.family(env)
    assert made.env == env and made.splits == ("train", "valid", "test")


def test_the_table_has_medians_and_goes_between_the_marks(tmp_path: Path):
    speeds = {name: [1.0, 3e4, 2e3] for name in adapter.CONTENDERS}
    result = {"cpu": "A processor", "cores": 1, "rounds": 3, "seconds": 2.0, "date": "2026-11-28T00:00:00"}
    page = tmp_path / "page.md"
    page.write_text(f"before\n{adapter.MARKS[0]}\nold\n{adapter.MARKS[1]}\nafter\n", encoding="utf-8")
    adapter.write_page(result | {"works": {"CartPole-v1": {"16": speeds}}}, page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "| CartPole-v1 | 16 | 2 k | 2 k | 2 k | 2 k | 2 k |" in text and "medians of 3" in text


def test_the_page_says_what_the_record_says():
    block = adapter.PAGE.read_text(encoding="utf-8").split(adapter.MARKS[0])[1].split(adapter.MARKS[1])[0].strip()
    record = adapter.RECORD
    assert block == (adapter.table(json.loads(record.read_text(encoding="utf-8"))) if record.exists() else "")
