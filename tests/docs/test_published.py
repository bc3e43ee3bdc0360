"""The table of MuJoCo tasks as papers published them: every row can be made, and is what the table says."""

from __future__ import annotations

import re

import numpy as np
import pytest

import metarl
from docs import published
from docs.docstrings import text
from metarl.core import rng
from metarl.core.options import options_of
from metarl.core.registry import family_class
from metarl.envs import SIMULATED

ROWS = published.ROWS
NAMES = [f"{row.paper.split(',')[0]}-{row.name}-{len(row.options)}" for row in ROWS]


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_a_row_is_made_and_is_what_it_says(row: published.Published):
    family = metarl.make(f"metarl/{row.name}-v0", **row.options)
    assert family.robot.dt == pytest.approx(row.dt)
    assert family.observation_space.shape == (row.seen,)
    assert family.terminates == (row.ending != "never")
    assert family.horizon == 200, "of all these papers"
    if row.number == (2, 2):
        assert [family.num_tasks(split) for split in ("train", "all")] == [2, 2] and "test" not in family.splits
    else:
        assert (family.num_tasks("train"), family.num_tasks("test")) == row.number
    for option, value in row.options.items():
        assert getattr(family, option) == value, "an option that the family keeps and that changes something"


@pytest.mark.parametrize("row", [row for row in ROWS if "v*" in row.tasks], ids=lambda row: f"{row.paper}-{row.name}")
def test_the_interval_of_a_wanted_speed_is_that_of_the_tasks(row: published.Published):
    found = re.search(r"U\((\d+), (\d+)\)", row.tasks)
    assert found is not None
    family = metarl.make(f"metarl/{row.name}-v0", **row.options)
    low, high = map(float, found.groups())
    speeds = family.sample_tasks(rng.key(0), 3000).velocity.numpy()
    assert low <= speeds.min() < low + 0.02 * (high - low) and high - 0.02 * (high - low) < speeds.max() < high
    assert np.median(speeds) == pytest.approx((low + high) / 2, rel=0.15)


def test_every_option_that_makes_a_family_a_paper_s_is_in_the_table():
    """No such option is forgotten, and no family that bears a paper's name."""
    used = {(row.name, option) for row in ROWS for option in row.options}
    for names in SIMULATED.values():
        for name in names:
            options = {"tasks", "show_x", "show_contacts", "min_height", "published", "forward_backward"}
            for option in options & set(options_of(family_class(f"metarl/{name}-v0"))):
                assert (name, option) in used, (name, option)
    assert {"HalfCheetahDirSparse", "AntGoalSparse", "AntVelMAML", "AntDirMAML", "AntPos"} <= {row.name for row in ROWS}
    assert {row.paper for row in ROWS} == {
        published.MAML, published.PROMP, published.PEARL, published.VARIBAD, published.HYPERX,
    }  # fmt: skip


def test_the_page_has_a_line_for_each_row():
    page = published.page(lambda name: f"[{name}](x)")
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    assert len(lines) == 1 + len(ROWS) and len({line.count(" | ") for line in lines}) == 1
    for row, line in zip(ROWS, lines[1:], strict=True):
        assert f"[{row.name}](x)" in line and f"| {row.dt:g} | {row.seen} |" in line and text(row.reward) in line
    assert "| `" not in page and "[AntDir](x) `min_height=0, show_contacts=True`" in page
