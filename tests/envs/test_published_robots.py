"""MuJoCo's families and options of published papers: next to Gymnasium's own v5 environments, and rewards by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import mujoco
import numpy as np
import pytest
import torch

import metarl
from metarl.core import rng
from metarl.core.family import TaskFamily
from metarl.core.tree import num_rows
from metarl.envs.mujoco.ant import AntDir, AntDir2D, AntGoal, AntGoalSparse, fallen
from metarl.envs.mujoco.ant_maml import AntDirMAML, AntPos, AntVelMAML
from metarl.envs.mujoco.goals import Direction, Heading, Place, Velocity
from metarl.envs.mujoco.half_cheetah import HalfCheetahDirSparse, HalfCheetahVel
from metarl.envs.mujoco.humanoid import HumanoidDir
from metarl.envs.mujoco.random_bodies import BodyScales, HopperRandParams, Walker2dRandParams
from metarl.envs.mujoco.simulator import load
from metarl.envs.points.half_circle import SparsePointRobot
from metarl.envs.points.point_robot import PointRobot
from metarl.testing import check_family

Env = Any  # one of Gymnasium's, unwrapped


class Before(NamedTuple):
    """What Gymnasium's environment was like before a step."""

    x: float
    torso: np.ndarray  # (2,)
    centre: np.ndarray  # (2,) of mass


class Twin(NamedTuple):
    """A family with its options, Gymnasium's environment of the same physics, and what ours must show and pay."""

    id: str
    options: dict[str, Any]
    theirs: str
    their_options: dict[str, Any]
    observed: Callable[[Env], list[np.ndarray]]
    reward: Callable[[Any, Before, Env, np.ndarray], float]
    timestep: float | None = None


def mass_centre(env: Env) -> np.ndarray:
    return (env.model.body_mass @ env.data.xipos / env.model.body_mass.sum())[:2]


def forces(env: Env) -> np.ndarray:
    return np.clip(env.data.cfrc_ext, -1.0, 1.0)


def contact(env: Env) -> float:
    return 0.0005 * float((forces(env) ** 2).sum())


def effort(action: np.ndarray) -> float:
    return float((action**2).sum())


def now(env: Env) -> Any:
    """MuJoCo's quantities for the positions and velocities after the step."""
    data = mujoco.MjData(env.model)
    data.qpos[:], data.qvel[:], data.ctrl[:] = env.data.qpos, env.data.qvel, env.data.ctrl
    mujoco.mj_forward(env.model, data)
    mujoco.mj_rnePostConstraint(env.model, data)
    return data


def centre_after(env: Env, seconds: float = 0.0) -> np.ndarray:
    """The centre of mass if the joints went on at their speeds for so long."""
    data = mujoco.MjData(env.model)
    data.qpos[:] = env.data.qpos
    mujoco.mj_integratePos(env.model, data.qpos, env.data.qvel, seconds)
    mujoco.mj_kinematics(env.model, data)
    return env.model.body_mass @ data.xipos / env.model.body_mass.sum()


def centre_speed(env: Env) -> float:
    return float(centre_after(env, 1e-6)[0] - centre_after(env, -1e-6)[0]) / 2e-6


def rllab_obs(env: Env) -> list[np.ndarray]:
    data = now(env)
    clipped = np.clip(data.cfrc_ext, -1.0, 1.0).ravel()
    return [env.data.qpos, env.data.qvel, clipped, data.xmat[1], centre_after(env)]


def rllab_living(env: Env, action: np.ndarray) -> float:
    return 0.05 - 0.005 * effort(action) - 0.0005 * float((np.clip(now(env).cfrc_ext, -1.0, 1.0) ** 2).sum())


def speed(was: Before, env: Env) -> float:
    return float(env.data.qpos[0] - was.x) / env.dt


def walking(task: Any, was: Before, env: Env, action: np.ndarray) -> float:
    along = float((env.data.xpos[1, :2] - was.torso) @ task.direction[0].numpy()) / env.dt
    return along - 0.5 * effort(action) - contact(env) + 1.0


def humanoid(task: Any, was: Before, env: Env, action: np.ndarray) -> float:
    along = float((mass_centre(env) - was.centre) @ task.direction[0].numpy()) / env.dt
    return 1.25 * along - 0.1 * effort(action) - min(5e-7 * float((env.data.cfrc_ext**2).sum()), 10.0) + 5.0


def goal_sparse(task: Any, was: Before, env: Env, action: np.ndarray) -> float:
    away = float(np.linalg.norm(env.data.xpos[1, :2] - task.position[0].numpy()))
    return (1.0 - away if away <= 0.75 else -0.75) - 0.01 * effort(action) - contact(env)


ANT = {"include_cfrc_ext_in_observation": False}
RLLAB = {"frame_skip": 1}
OLD = {"xml_file": "walker2d.xml"}

TWINS = {
    "HalfCheetahVel": Twin(
        "HalfCheetahVel", {"show_x": True, "tasks": "pearl"}, "HalfCheetah-v5", {},
        lambda e: [e.data.qpos[1:], e.data.qvel, e.data.xpos[1]],
        lambda task, was, e, a: -abs(speed(was, e) - float(task.velocity[0])) - 0.05 * effort(a),
    ),
    "HalfCheetahDir": Twin(
        "HalfCheetahDir", {"show_x": True}, "HalfCheetah-v5", {},
        lambda e: [e.data.qpos[1:], e.data.qvel, e.data.xpos[1]],
        lambda task, was, e, a: float(task.direction[0]) * speed(was, e) - 0.05 * effort(a),
    ),
    "HalfCheetahDirSparse": Twin(
        "HalfCheetahDirSparse", {}, "HalfCheetah-v5", {},
        lambda e: [e.data.qpos, e.data.qvel, e.data.xpos[1]],
        lambda task, was, e, a: -0.05 * effort(a),
    ),
    "AntDir": Twin(
        "AntDir", {"min_height": 0, "show_contacts": True}, "Ant-v5", {"healthy_z_range": (0.0, 1.0)},
        lambda e: [e.data.qpos[2:], e.data.qvel, forces(e).ravel()], walking,
    ),
    "AntDir2D": Twin(
        "AntDir2D", {"min_height": 0, "show_contacts": True}, "Ant-v5", {"healthy_z_range": (0.0, 1.0)},
        lambda e: [e.data.qpos[2:], e.data.qvel, forces(e).ravel()], walking,
    ),
    "AntGoal": Twin(
        "AntGoal", {"show_contacts": True}, "Ant-v5", {"terminate_when_unhealthy": False},
        lambda e: [e.data.qpos, e.data.qvel, forces(e).ravel()],
        lambda task, was, e, a: (
            -float(np.abs(e.data.xpos[1, :2] - task.position[0].numpy()).sum()) - 0.1 * effort(a) - contact(e)
        ),
    ),
    "AntGoalSparse": Twin(
        "AntGoalSparse", {}, "Ant-v5", {"terminate_when_unhealthy": False},
        lambda e: [e.data.qpos, e.data.qvel, e.data.xpos[1], forces(e).ravel()], goal_sparse,
    ),
    "AntVelMAML": Twin(
        "AntVelMAML", {}, "Ant-v5", RLLAB, rllab_obs,
        lambda task, was, e, a: 1.0 - abs(centre_speed(e) - float(task.velocity[0])) + rllab_living(e, a), 0.02,
    ),
    "AntDirMAML": Twin(
        "AntDirMAML", {}, "Ant-v5", RLLAB, rllab_obs,
        lambda task, was, e, a: float(task.direction[0]) * centre_speed(e) + rllab_living(e, a), 0.02,
    ),
    "AntPos": Twin(
        "AntPos", {}, "Ant-v5", RLLAB, rllab_obs,
        lambda task, was, e, a: (
            4.0 - float(np.abs(centre_after(e)[:2] - task.position[0].numpy()).sum()) + rllab_living(e, a)
        ),
        0.02,
    ),
    "Walker2dDir": Twin(
        "Walker2dDir", {}, "Walker2d-v5", {**OLD, "frame_skip": 8}, lambda e: [e._get_obs()],
        lambda task, was, e, a: float(task.direction[0]) * speed(was, e) + 1.0 - 0.001 * effort(a),
    ),
    "Walker2dVel": Twin(
        "Walker2dVel", {}, "Walker2d-v5", {**OLD, "frame_skip": 8}, lambda e: [e._get_obs()],
        lambda task, was, e, a: 15.0 - abs(speed(was, e) - float(task.velocity[0])) - 0.001 * effort(a),
    ),
    "HumanoidDir": Twin(
        "HumanoidDir", {"forward_backward": True, "show_contacts": True}, "Humanoid-v5", {},
        lambda e: [e._get_obs()], humanoid,
    ),
    "Walker2dRandParams": Twin(
        "Walker2dRandParams", {"published": True}, "Walker2d-v5", OLD, lambda e: [e._get_obs()],
        lambda task, was, e, a: speed(was, e) + 1.0 - 0.001 * effort(a), 0.004,
    ),
    "HopperRandParams": Twin(
        "HopperRandParams", {"published": True}, "Hopper-v5", {}, lambda e: [e._get_obs()],
        lambda task, was, e, a: speed(was, e) + 1.0 - 0.001 * effort(a), 0.004,
    ),
}  # fmt: skip


def made(twin: Twin) -> tuple[Any, Env]:
    family = metarl.make(f"metarl/{twin.id}-v0", **twin.options)
    env = gymnasium.make(twin.theirs, **twin.their_options).unwrapped
    if twin.timestep is not None:
        env.model.opt.timestep = twin.timestep
    env.reset(seed=0)
    return family, env


def one_task(family: TaskFamily) -> Any:
    task = family.sample_tasks(rng.key(4), 1)
    return BodyScales(*[torch.ones_like(part) for part in task]) if isinstance(task, BodyScales) else task


def action_of(family: TaskFamily, t: int) -> torch.Tensor:
    space = family.action_space
    return torch.as_tensor(space.high) * (2.0 * rng.uniform(rng.fold(rng.key(5), t), len(space.high)) - 1.0)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo logs its warning of Gymnasium's XML there


@pytest.mark.parametrize("name", TWINS)
def test_steps_observations_and_rewards_are_those_of_gymnasium_s_physics(name: str):
    twin = TWINS[name]
    family, env = made(twin)
    task = one_task(family)
    state = family.reset(task, rng.key(3)[None])
    model, key = family.robot.simulator.model, rng.key(0)[None]
    env.set_state(state.state[0, 1 : 1 + model.nq].numpy(), state.state[0, 1 + model.nq :].numpy())
    mujoco.mj_rnePostConstraint(env.model, env.data)  # the forces of contact, which `set_state` leaves as they were
    start = np.concatenate(twin.observed(env))
    assert family.observation_space.shape == start.shape
    touched = 0.0
    np.testing.assert_allclose(family.observe(task, state)[0].numpy(), start, rtol=1e-5, atol=1e-5)
    for t in range(40):
        action = action_of(family, t)
        was = Before(float(env.data.qpos[0]), env.data.xpos[1, :2].copy(), mass_centre(env).copy())
        state, reward, ended = family.step(task, state, action[None], key)
        _, _, their_end, _, _ = env.step(action.numpy().astype(np.float64))
        shown = np.concatenate(twin.observed(env))
        np.testing.assert_allclose(family.observe(task, state)[0].numpy(), shown, rtol=1e-4, atol=1e-4)
        assert float(reward[0]) == pytest.approx(twin.reward(task, was, env, action.numpy()), abs=2e-4)
        touched = max(touched, contact(env))
        assert bool(ended[0]) == their_end, "also of robots that have fallen, and go on here"
    assert touched > 0.002 or not name.startswith(("Ant", "Humanoid")), "what touching the floor costs is tested"
    env.close()


@pytest.mark.parametrize("name", TWINS)
def test_the_model_and_the_time_between_actions_are_gymnasium_s(name: str):
    family, env = made(TWINS[name])
    ours = family.robot.simulator.model
    for field in dir(ours):  # all but textures, and where names lie in memory
        value = getattr(ours, field)
        if isinstance(value, np.ndarray) and not field.startswith(("name", "tex", "mat", "_sizes")):
            np.testing.assert_array_equal(value, getattr(env.model, field), err_msg=field)
    assert ours.opt.timestep == env.model.opt.timestep and ours.opt.integrator == env.model.opt.integrator
    assert family.robot.dt == pytest.approx(env.dt)
    assert family.action_space == env.action_space
    env.close()


@pytest.mark.parametrize("name", [name for name, twin in TWINS.items() if twin.options])
def test_families_keep_their_contract_with_the_options(name: str):
    check_family(metarl.make(f"metarl/{TWINS[name].id}-v0", **TWINS[name].options))


def test_a_changed_time_step_is_the_family_s_own():
    assert Walker2dRandParams(published=True).robot.dt == pytest.approx(0.016)
    assert HopperRandParams(published=True).robot.dt == pytest.approx(0.016)
    assert AntVelMAML().robot.dt == pytest.approx(0.02)
    for xml, seconds in (("walker2d.xml", 0.002), ("hopper.xml", 0.002), ("ant.xml", 0.01)):
        assert load(xml).opt.timestep == seconds, "the shared model is as it was"
    assert Walker2dRandParams().robot.dt == pytest.approx(0.008)


def test_published_bodies_have_the_published_feet_and_step():
    """Each row's model, too: its friction is a multiple of 0.9 and 1.9."""
    family = Walker2dRandParams(published=True)
    feet = [family.robot.simulator.model.geom(name).friction[0] for name in ("foot_geom", "foot_left_geom")]
    assert feet == [0.9, 1.9]
    task = family.sample_tasks(rng.key(0), 3)
    for row, model in enumerate(family.bodies.of(task)):
        assert model.opt.timestep == 0.004
        factors = task.friction[row].numpy().reshape(-1, 3)
        assert model.geom("foot_geom").friction[0] == pytest.approx(0.9 * factors[model.geom("foot_geom").id, 0])


def test_a_sparse_cheetah_is_paid_only_five_metres_away():
    family, key = HalfCheetahDirSparse(), rng.key(0).repeat(8)
    places = torch.tensor([0.0, 4.8, -4.8, 5.2, -5.2, 9.0, -9.0, 9.0])
    task = Direction(torch.tensor([1.0, 1.0, 1.0, 1.0, -1.0, -1.0, 1.0, 1.0]))
    state = family.reset(task, rng.fold(rng.key(1), torch.arange(8)))
    state.state[:, 1] = places.double()
    action = 0.5 * torch.ones(8, 6)
    after, reward, ended = family.step(task, state, action, key)
    run = (after.state[:, 1] - state.state[:, 1]).float() / 0.05
    cost = 0.05 * 6 * 0.25
    expected = torch.where(places.abs() > 5.0, task.direction * run, 0.0) - cost
    torch.testing.assert_close(reward, expected, atol=1e-5, rtol=1e-5)
    assert (run.abs() > 0.01).all() and not ended.any()
    assert family.observe(task, after)[:, 0].tolist() == pytest.approx(after.state[:, 1].tolist(), abs=1e-5)


def test_where_a_sparse_cheetah_is_paid_is_its_torso_s_place_a_simulation_step_before():
    """As in the published code: at the border, where it makes a difference."""
    family, key = HalfCheetahDirSparse(), rng.key(0)[None]
    task = Direction(torch.tensor([1.0]))
    state = family.reset(task, key)
    state.state[:, 1:], state.state[:, 1], state.state[:, 10] = 0.0, 4.875, 3.0  # 3 m/s: crosses in the last step
    after, reward, _ = family.step(task, state, torch.zeros(1, 6), key)
    assert float(after.reading[0, 0]) < 5.0 < float(after.state[0, 1])
    assert float(reward[0]) == 0.0


def test_a_sparse_ant_is_told_how_near_it_is_within_its_radius():
    family, key = AntGoalSparse(), rng.key(0).repeat(4)
    away = torch.tensor([0.0, 0.5, 0.7, 1.0])
    start = family.reset(Place(torch.zeros(4, 2)), key)
    action = 0.2 * torch.ones(4, 8)
    after, _, _ = family.step(Place(torch.zeros(4, 2)), start, action, key)
    there = after.reading[:, -3:-1].float()
    task = Place(there + torch.stack([away, torch.zeros(4)], dim=1))
    _, reward, ended = family.step(task, start, action, key)
    cost = 0.01 * 8 * 0.04 + 0.0005 * after.reading[:, -1].float()
    torch.testing.assert_close(reward + cost, torch.tensor([1.0, 0.5, 0.3, -0.75]), atol=1e-5, rtol=0)
    assert family.success(task, after).tolist() == [True, True, True, False] and not ended.any()


def test_goals_are_drawn_as_published():
    key = rng.key(0)
    places = AntPos().sample_tasks(key, 4000).position
    assert places.abs().max() <= 3.0 and places.std(0).sub(6 / 12**0.5).abs().max() < 0.06
    outside = AntPos().sample_tasks(key, 400, "ood").position.abs().amax(1)
    assert outside.min() >= 3.0 and outside.max() < 4.0
    assert torch.equal(AntGoalSparse().sample_tasks(key, 9).position, AntGoal(train_tasks=None).sample_tasks(key, 9)[0])
    radius = AntGoalSparse().sample_tasks(key, 4000).position.norm(dim=1)
    assert radius.max() < 3.0 and float((radius < 1.5).float().mean()) == pytest.approx(0.25, abs=0.03), "3 √U"
    speeds = metarl.make("metarl/Walker2dVel-v0").sample_tasks(key, 4000).velocity
    assert speeds.min() >= 0.0 and speeds.max() < 10.0 and float(speeds.mean()) == pytest.approx(5.0, abs=0.2)
    for name in ("HalfCheetahDirSparse", "AntDirMAML", "Walker2dDir"):
        assert set(metarl.make(f"metarl/{name}-v0").sample_tasks(key, 50).direction.tolist()) == {-1.0, 1.0}
    ways = HumanoidDir(forward_backward=True)
    assert ways.splits == ("train", "valid", "all") and ways.num_tasks("train") == 2
    assert {tuple(way) for way in ways.sample_tasks(key, 50).direction.tolist()} == {(1.0, 0.0), (-1.0, 0.0)}


@pytest.mark.parametrize("kind", [AntDir, AntDir2D])
def test_an_ant_ends_below_its_least_height(kind: type[AntDir] | type[AntDir2D]):
    key = rng.key(0).repeat(2)
    task = Heading(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    state = kind().reset(task, key)
    state.state[:, 3] = torch.tensor([0.5, 1.2])
    for height, ends in ((0.2, [False, True]), (0.6, [True, True]), (0, [False, True])):
        assert kind(min_height=height).step(task, state, torch.zeros(2, 8), key)[2].tolist() == ends
    assert kind().min_height == 0.2
    state.state[:, 3] = torch.tensor([0.01, -0.01])
    assert fallen(state, 0.0).tolist() == [False, True] and fallen(state).tolist() == [True, True]


@pytest.mark.parametrize("height", [-0.1, 0.75, float("nan"), "0", True])
def test_a_height_that_cannot_be_is_refused(height: Any):
    with pytest.raises(ValueError, match=r"min_height must be from 0 to below 0.75 \(metres\), got"):
        AntDir(min_height=height)


@pytest.mark.parametrize("lists", [{"train_tasks": 1}, {"test_tasks": 2}])
def test_two_directions_have_no_lists(lists: dict[str, int]):
    with pytest.raises(ValueError, match="With forward_backward=True there are only two tasks"):
        HumanoidDir(forward_backward=True, **lists)
    HumanoidDir(forward_backward=True, train_tasks=None, test_tasks=None)


# ---- PEARL's lists of tasks ----------------------------------------------------------------------------------------


def published_speeds() -> np.ndarray:
    return np.random.RandomState(1337).uniform(0.0, 3.0, size=(130,))[:, None]


def published_goals() -> np.ndarray:
    draw = np.random.RandomState(1337)
    return np.array([[draw.uniform(-1.0, 1.0), draw.uniform(-1.0, 1.0)] for _ in range(100)])


def published_arc() -> np.ndarray:
    draw = np.random.RandomState(1337)
    angles = np.linspace(0, np.pi, num=100)
    goals = np.stack([1.0 * np.cos(angles), 1.0 * np.sin(angles)], axis=1)
    draw.shuffle(goals)
    return goals


LISTS = [
    (HalfCheetahVel(tasks="pearl"), published_speeds(), 100, 30),
    (PointRobot(tasks="pearl"), published_goals(), 80, 20),
    (SparsePointRobot(tasks="pearl"), published_arc(), 80, 20),
    (SparsePointRobot(tasks="pearl", dense=True), published_arc(), 80, 20),
]
NAMES = ["HalfCheetahVel", "PointRobot", "SparsePointRobot", "dense"]


@pytest.mark.parametrize(("family", "published", "train", "test"), LISTS, ids=NAMES)
def test_pearls_lists_are_those_of_numpy(family: TaskFamily, published: np.ndarray, train: int, test: int):
    listed = {split: family.tasks_of(split)[0].reshape(-1, published.shape[1]) for split in ("train", "valid", "test")}
    assert len(published) == train + test
    np.testing.assert_array_equal(listed["train"].numpy(), published[:train].astype(np.float32))
    np.testing.assert_array_equal(listed["test"].numpy(), published[-test:].astype(np.float32))
    rows = {split: {tuple(row) for row in part.tolist()} for split, part in listed.items()}
    assert rows["valid"] < rows["train"] and len(rows["valid"]) == train // 3 and not rows["train"] & rows["test"]
    for split in ("train", "valid", "test"):
        drawn = family.sample_tasks(rng.key(0), 2000, split)[0].reshape(-1, published.shape[1])
        assert {tuple(row) for row in drawn.tolist()} == rows[split], split
    assert family.tasks_of("ood") is None and num_rows(family.sample_tasks(rng.key(0), 5, "ood")) == 5


def test_pearls_lists_begin_as_numpy_s_generator_of_that_seed():
    """By numbers, so that a change of NumPy's generator would be seen."""
    assert published_speeds()[:3, 0] == pytest.approx([0.7860740, 0.4760517, 0.8343796], abs=1e-6)
    assert HalfCheetahVel(tasks="pearl").tasks_of("train").velocity[:3].tolist() == pytest.approx(
        [0.7860740, 0.4760517, 0.8343796], abs=1e-6
    )
    assert PointRobot(tasks="pearl").tasks_of("train").position[0].tolist() == pytest.approx(
        [2 * 0.7860740 / 3 - 1, 2 * 0.4760517 / 3 - 1], abs=1e-6
    )


@pytest.mark.parametrize("make", [HalfCheetahVel, PointRobot, SparsePointRobot])
def test_other_lists_are_refused(make: Callable[..., TaskFamily]):
    with pytest.raises(ValueError, match=r"Unknown tasks: 'maml'.* Known: own, pearl"):
        make(tasks="maml")
    own = make()
    assert own.num_tasks("train") in (None, 100), "the default is as it was"


def test_the_tests_see_the_goal_of_each_family():
    """The same motion pays by the task only: else the rewards above would be tested with one goal."""
    for family, one, other in (
        (AntVelMAML(), Velocity(torch.tensor([0.0])), Velocity(torch.tensor([1.0]))),
        (AntDirMAML(), Direction(torch.tensor([1.0])), Direction(torch.tensor([-1.0]))),
        (AntPos(), Place(torch.zeros(1, 2)), Place(torch.ones(1, 2))),
    ):
        key = rng.key(0)[None]
        state = family.reset(one, key)
        rewards = [float(family.step(task, state, torch.zeros(1, 8), key)[1][0]) for task in (one, other)]
        assert rewards[0] != rewards[1]
