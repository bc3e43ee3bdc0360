"""The table of ensembles that adapt in rounds."""

from __future__ import annotations

from benchmarks.ensemble_rounds import as_table


def test_a_member_has_no_gain_and_an_ensemble_has_one():
    alone = {"player": "maml", "points": [-9.0, -3.0, -2.0], "score": [-2.0, -2.5, -1.5], "more": None}
    together = alone | {"player": "together", "more": [0.5, 0.25, 0.75]}
    head, rule, first, second = (line.split(" | ") for line in as_table([alone, together]).splitlines())
    assert len(head) == len(rule) == len(first) == len(second) == 5
    assert head[1:3] == ["after 0 steps", "after 1 step"] and first[1:3] == ["-9.00", "-3.00"]
    assert first[3] == "-2.00 [-2.50, -1.50]" and first[4].strip(" |") == ""
    assert second[4].strip(" |") == "0.500 [0.250, 0.750]"
