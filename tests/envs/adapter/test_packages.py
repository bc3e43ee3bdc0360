"""Families out of environments that come with an extra: LunarLander and MiniGrid, as the presets make them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import metarl
from metarl.agents.random import RandomAgent
from metarl.core import rng
from metarl.core.rollout import run_trial
from metarl.testing import check_family

CONFIGS = Path(__file__).parents[3] / "configs"


def options(preset: str) -> dict[str, Any]:
    """Return the options of a preset's family."""
    family = yaml.safe_load((CONFIGS / f"{preset}.yaml").read_text(encoding="utf-8"))["family"]
    return {name: value for name, value in family.items() if name != "name"}


@pytest.fixture
def lander() -> Any:
    pytest.importorskip("Box2D", reason="pip install 'metarl[box2d]'")
    return metarl.make("metarl/Gym-v0", **options("rl2_lunar_lander") | {"horizon": 20})


@pytest.fixture
def rooms() -> Any:
    pytest.importorskip("minigrid", reason="pip install 'metarl[minigrid]'")
    return metarl.make("metarl/Gym-v0", **options("rl2_minigrid_multiroom"))


def test_the_contract_holds_for_the_lander(lander: Any):
    check_family(lander)


def test_the_contract_holds_for_the_rooms(rooms: Any):
    check_family(rooms)


def test_the_control_lands_on_the_same_tasks():
    assert options("memoryless_lunar_lander") == options("rl2_lunar_lander")


def test_attributes_of_the_lander_do_what_its_constructor_does(lander: Any):
    """With the constructor each task has an environment of its own, and with attributes one is enough for all."""
    given = options("rl2_lunar_lander")
    parameters = {name: value | {"where": "constructor"} for name, value in given["parameters"].items()}
    other = metarl.make("metarl/Gym-v0", **given | {"parameters": parameters, "horizon": 20})
    task = lander.sample_tasks(rng.key(1), 3)
    (one,), (two,) = (run_trial(RandomAgent(f), f, task, rng.key(2)) for f in (lander, other))
    assert torch.equal(one.step.obs, two.step.obs) and torch.equal(one.outcome.reward, two.outcome.reward)


@pytest.mark.parametrize("number", ["gravity", "wind_power"])
def test_the_landers_numbers_matter(lander: Any, number: str):
    """Stronger gravity makes it fall faster; wind moves it another way."""
    task = lander.sample_tasks(rng.key(1), 1)
    task = task._replace(gravity=torch.tensor([-6.0]), wind_power=torch.tensor([0.0]))
    stronger = task._replace(**{number: torch.tensor([{"gravity": -11.0, "wind_power": 20.0}[number]])})
    key, nothing, speeds = rng.key(2)[None], torch.tensor([0]), []
    for each in (task, stronger):
        state = lander.reset(each, key)
        for _ in range(10):
            state, *_ = lander.step(each, state, nothing, key)
        speeds.append(state.obs[0, 2:4])
    if number == "gravity":
        assert speeds[1][1] < speeds[0][1] - 0.05
    else:
        assert abs(float(speeds[1][0] - speeds[0][0])) > 1e-3


def test_ood_is_weaker_gravity(lander: Any):
    train, ood = (lander.sample_tasks(rng.key(0), 100, split).gravity for split in ("train", "ood"))
    assert float(train.min()) >= -11 and float(train.max()) <= -6 <= float(ood.min()) and float(ood.max()) <= -2


def test_a_layout_stays_through_a_trial_and_test_layouts_are_new(rooms: Any):
    task = rooms.sample_tasks(rng.key(0), 3)
    (rollout,) = run_trial(RandomAgent(rooms), rooms, task, rng.key(1))
    for row in range(3):
        starts = [0, *((rollout.step.prev_done[:, row] > 0) & (rollout.mask[:, row] > 0)).nonzero().flatten().tolist()]
        assert len(starts) == 4
        assert all(torch.equal(rollout.step.obs[start, row], rollout.step.obs[0, row]) for start in starts)
    assert not torch.equal(rollout.step.obs[0, 0], rollout.step.obs[0, 1])
    seeds = [set(rooms.enumerate_tasks(split).layout.tolist()) for split in ("train", "valid", "test")]
    assert [len(each) for each in seeds] == [1000, 100, 100] and len(set.union(*seeds)) == 1200


def test_the_rooms_show_an_image_and_a_direction(rooms: Any):
    parts = {part.name: part.space.shape for part in rooms.observation_parts}
    assert parts == {"image": (7, 7, 3), "direction": (4,)}
