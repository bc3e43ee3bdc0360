"""What the families say of their differences from the papers: the half of it that is about us is true."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

import metarl
from docs import make_gallery
from metarl.core import rng
from metarl.envs.mujoco.ant import fallen
from metarl.report.card import card, short_name

IDS = make_gallery.shipped()
TOLD = {
    short_name(id): {what: here for what, here, _ in make_gallery.rows(section.splitlines())[1:]}
    for id in IDS
    if (section := card(id).sections.get(make_gallery.DIFFERENCES))
}


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)]


def family(name: str) -> metarl.TaskFamily:
    return metarl.make(f"metarl/{name}-v0")


def those(what: str) -> list[str]:
    return [name for name, rows in TOLD.items() if what in rows]


def test_all_that_were_found_to_differ_say_so():
    differ = {
        "Walker2dRandParams", "HopperRandParams", "AntVel", "AntDir", "AntDir2D", "AntGoal", "HalfCheetahVel",
        "HalfCheetahVelMAML", "HalfCheetahDir", "PointRobot",
    }  # fmt: skip
    assert differ <= set(TOLD)
    page = (make_gallery.DOCS / make_gallery.PAGES / "index.md").read_text(encoding="utf-8")
    table = page.partition(f"## {make_gallery.VARIANTS}\n")[2].partition("\n## ")[0]
    assert sum(line.startswith("| [") for line in table.splitlines()) == sum(map(len, TOLD.values()))


@pytest.mark.parametrize("name", those("time between actions"))
def test_time_between_actions(name: str):
    seconds, *rest = numbers(TOLD[name]["time between actions"])
    simulator = family(name).robot.simulator
    assert simulator.dt == pytest.approx(seconds)
    assert not rest or rest == pytest.approx([simulator.frame_skip, simulator.model.opt.timestep])


@pytest.mark.parametrize("name", [name for name in those("observations") if "numbers" in TOLD[name]["observations"]])
def test_size_of_observations(name: str):
    assert family(name).observation_space.shape == (numbers(TOLD[name]["observations"])[0],)


@pytest.mark.parametrize("name", [name for name in those("start") if "U[" in TOLD[name]["start"]])
def test_start(name: str):
    said = TOLD[name]["start"]
    one = family(name)
    task = one.sample_tasks(rng.key(0), 4000)
    state = one.reset(task, rng.fold(rng.key(1), torch.arange(4000)))
    away = one.robot.simulator.positions(state).numpy() - one.robot.simulator.model.qpos0
    assert away.min() == pytest.approx(-0.1, abs=1e-3) and away.max() == pytest.approx(0.1, abs=1e-3)
    assert away.std() == pytest.approx(0.2 / np.sqrt(12), rel=0.02), "uniform"
    assert one.robot.simulator.velocities(state).std() == pytest.approx(0.1, rel=0.02)
    if "high" in said:
        assert one.robot.simulator.model.qpos0[2] == numbers(said)[0]


@pytest.mark.parametrize("name", [name for name in those("tasks") if "always the same" in TOLD[name]["tasks"]])
def test_lists_of_tasks(name: str):
    one = family(name)
    assert [one.train_tasks, one.test_tasks] == numbers(TOLD[name]["tasks"])[:2]


def test_friction_of_the_walker_s_feet():
    model = family("Walker2dRandParams").robot.simulator.model
    feet = [model.geom(name).friction[0] for name in ("foot_geom", "foot_left_geom")]
    assert feet == [numbers(TOLD["Walker2dRandParams"]["friction of the feet"])[0]] * 2


def test_height_at_which_an_ant_has_fallen():
    one = family("AntDir2D")
    low, high = numbers(TOLD["AntDir2D"]["height that ends an episode"])[:2]
    state = one.reset(one.sample_tasks(rng.key(0), 4), rng.fold(rng.key(1), torch.arange(4)))
    state.state[:, 3] = torch.tensor([low - 0.001, low + 0.001, high - 0.001, high + 0.001])
    assert fallen(state).tolist() == [True, False, False, True]


def test_options_that_are_the_papers():
    assert family("GaussianBandit").std == numbers(TOLD["GaussianBandit"]["noise"])[0]
    assert family("RestlessBandit").step_size == numbers(TOLD["RestlessBandit"]["steps of the walk"])[0]
    assert family("WindyPoint").horizon == numbers(TOLD["WindyPoint"]["steps"])[0]
