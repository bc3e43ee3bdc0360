"""The file of a robot whose friction, masses and gravity change: the numbers arrive in its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import metarl
from metarl.core import rng
from metarl.core.errors import WrongResult
from metarl.envs.adapter import gym_family
from metarl.testing import check_family
from metarl.training.config import parsing as config

pytest.importorskip("mujoco", reason="pip install 'metarl[mujoco]'")

FILE = Path(__file__).parents[3] / "examples" / "families" / "hopper_physics.yaml"


@pytest.fixture(scope="module")
def family() -> Any:
    return config.parse(["--config", str(FILE)]).config.family


@pytest.fixture(scope="module")
def own() -> Any:
    """The model of Gymnasium's own robot."""
    return gymnasium.make("Hopper-v5").unwrapped.model


def model(family: Any, **numbers: float) -> Any:
    """Return the model after the reset of a task with these numbers, the others as they are in the robot."""
    task = family.sample_tasks(rng.key(0), 1)
    given = {"friction": 1.0, "mass": 1.0, "foot": 1.0, "gravity": -9.81} | numbers
    family.reset(task._replace(**{name: torch.tensor([value]) for name, value in given.items()}), rng.key(1)[None])
    return family._pool._benches[0].simulators[0].env.unwrapped.model


def test_the_contract_holds():
    check_family(config.parse(["--config", str(FILE), "--family.horizon=10"]).config.family)


def test_masses_arrive_with_what_follows_from_them(family: Any, own: Any):
    changed, foot = model(family, mass=1.25, foot=1.4), own.body("foot").id
    expected = 1.25 * own.body_mass
    expected[foot] *= 1.4
    np.testing.assert_allclose(changed.body_mass, expected, rtol=1e-6)
    assert changed.body_subtreemass[0] == pytest.approx(expected.sum()), "MuJoCo computed its constants again"
    assert changed.body_subtreemass[0] > 1.25 * own.body_subtreemass[0]
    moved_by_a_force = model(family, mass=0.7).dof_invweight0.copy()
    assert (moved_by_a_force > model(family, mass=1.4).dof_invweight0).all()


def test_moments_of_inertia_belong_to_a_body(family: Any, own: Any):
    changed = model(family, mass=1.25, foot=1.4)
    per_mass = [each.body_inertia[1:] / each.body_mass[1:, None] for each in (changed, own)]
    np.testing.assert_allclose(*per_mass, rtol=1e-6)  # the same shape, another density
    smallest, middle, largest = np.sort(changed.body_inertia[1:], axis=1).T
    assert (smallest > 0).all() and (smallest + middle >= largest * 0.999).all()


def test_friction_and_gravity_arrive(family: Any, own: Any):
    changed = model(family, friction=0.5, gravity=-11.0)
    np.testing.assert_allclose(changed.geom_friction, 0.5 * own.geom_friction)
    np.testing.assert_allclose(changed.opt.gravity, [0.0, 0.0, -11.0])


def test_the_next_task_starts_from_the_robots_own_numbers(family: Any, own: Any):
    model(family, mass=1.4, friction=0.5)
    again = model(family)
    for field in ("body_mass", "body_inertia", "geom_friction", "body_subtreemass", "dof_invweight0"):
        np.testing.assert_allclose(getattr(again, field), getattr(own, field), rtol=1e-6, err_msg=field)


@pytest.mark.parametrize("split", ["train", "ood"])
def test_rows_step_as_a_robot_with_these_numbers(family: Any, split: str):
    """A robot of Gymnasium's that is changed by hand, with MuJoCo's own call afterwards."""
    import mujoco

    task, key = family.sample_tasks(rng.key(2), 1, split), rng.key(3)[None]
    state, seed = family.reset(task, key), int(rng.fold(key, 0)) & 0x7FFFFFFF
    friction, mass, foot, gravity = (float(str(value.numpy()[0])) for value in task)
    env = gymnasium.make("Hopper-v5").unwrapped
    env.model.geom_friction[:] *= friction
    ratio = np.full(env.model.nbody, mass)
    ratio[env.model.body("foot").id] *= foot
    env.model.body_mass[:] *= ratio
    env.model.body_inertia[:] *= ratio[:, None]
    env.model.opt.gravity[2] = gravity
    mujoco.mj_setConst(env.model, env.data)
    first, _ = env.reset(seed=seed)
    np.testing.assert_allclose(first, state.obs[0].numpy(), rtol=1e-6)
    for action in np.random.default_rng(0).uniform(-1, 1, (10, 3)).astype(np.float32):
        obs, reward, *_ = env.step(action)
        state, ours, _ = family.step(task, state, torch.from_numpy(action)[None], key)
        np.testing.assert_allclose(obs, state.obs[0].numpy(), rtol=1e-4, atol=1e-5)
        assert float(ours) == pytest.approx(reward, rel=1e-4)


def test_a_body_of_no_mass_is_refused(family: Any):
    with pytest.raises(WrongResult, match="a mass or moments of inertia that no body has"):
        model(family, mass=-1.0)


def test_without_a_gl_it_has_no_picture(family: Any, monkeypatch: pytest.MonkeyPatch):
    """It does not ask MuJoCo again, which aborts the process at the second time."""
    monkeypatch.setattr(gym_family, "robots_are_drawn", lambda: False)
    assert "MUJOCO_GL" in family.no_picture and not metarl.make("metarl/Gym-v0").no_picture
    monkeypatch.setattr(gym_family, "robots_are_drawn", lambda: True)
    assert not family.no_picture
