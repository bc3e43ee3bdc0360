"""The table of beliefs in the documentation is what the families say."""

from __future__ import annotations

import pytest

import metarl
from docs import make_belief_table
from docs.family_groups import GROUPS

pytest.importorskip("mujoco")


def test_the_table_is_what_the_families_say():
    text = make_belief_table.PAGE.read_text(encoding="utf-8")
    assert make_belief_table.page(text, make_belief_table.table()) == text, "run python -m docs.make_belief_table"


def test_every_family_is_in_it_and_only_those_without_have_a_reason():
    names = {
        name.removeprefix("metarl/").removesuffix("-v0") for name in metarl.registered() if name.startswith("metarl/")
    }
    grouped = {name for group in GROUPS.values() for name in group.names}
    assert names - set(make_belief_table.ELSEWHERE) == grouped - set(make_belief_table.ELSEWHERE)
    assert {name for name in make_belief_table.NONE if make_belief_table.kinds(name)} == set()
