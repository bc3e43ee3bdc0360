"""Single environments are measured, and the page says what the record says."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import rows


def test_both_sides_are_stepped():
    found = rows.child(["MountainCar", "GridNavi"], rounds=1, own=True)
    assert found.keys() == {rows.OURS.format("MountainCar"), rows.OURS.format("GridNavi"), "MountainCar-v0"}
    assert all(cost > 0 for cost in found.values())


def test_the_least_of_the_turns_counts(monkeypatch):
    costs = iter([4.0, 9.0, 5.0, 8.0])

    def turn(root: Path, names: list[str], rounds: int, own: bool) -> dict[str, float]:
        cost = next(costs)
        return {rows.OURS.format("CartPole"): cost} | ({"CartPole-v1": cost / 2} if own else {})

    monkeypatch.setattr(rows, "turn", turn)
    found = rows.measure(["CartPole"], Path("elsewhere"), turns=2, rounds=1)
    assert found == {"CartPole": {"metarl": 4.0, "former": 8.0, "gymnasium": 2.0}}


def test_the_table_has_ratios_and_goes_between_the_marks(tmp_path: Path):
    result = {"cpu": "A processor", "turns": 2, "rounds": 3, "date": "2026-11-28T00:00:00"}
    works = {"GridNavi": {"metarl": 8.0}, "CartPole": {"metarl": 10.0, "former": 150.0, "gymnasium": 5.0}}
    page = tmp_path / "page.md"
    page.write_text(f"before\n{rows.MARKS[0]}\nold\n{rows.MARKS[1]}\nafter\n", encoding="utf-8")
    rows.write_page(result | {"works": works}, page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "| CartPole | 10.0 | 150 | 15.0 | CartPole-v1 5.0 | 2.0 |\n| GridNavi | 8.0 |  |  |  |  |" in text


def test_the_page_says_what_the_record_says():
    block = rows.PAGE.read_text(encoding="utf-8").split(rows.MARKS[0])[1].split(rows.MARKS[1])[0].strip()
    assert block == rows.table(json.loads(rows.RECORD.read_text(encoding="utf-8")))
