"""The MuJoCo families: beside Gymnasium's own v5 environments, with threads, with bodies of their own."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest
import torch

import metarl
from metarl.core import rng
from metarl.core.batch_env import BatchEnv
from metarl.core.tree import take, to_device
from metarl.envs import SIMULATED
from metarl.envs.mujoco import simulator
from metarl.envs.mujoco.ant import AntDir, AntGoal
from metarl.envs.mujoco.goals import Heading, Place, Velocity
from metarl.envs.mujoco.half_cheetah import HalfCheetahDir, HalfCheetahVel, HalfCheetahVelMAML, half_cheetah
from metarl.envs.mujoco.humanoid import HumanoidDir
from metarl.envs.mujoco.random_bodies import BodyScales, HopperRandParams, Walker2dRandParams
from metarl.envs.mujoco.simulator import Physics, Simulator, load
from metarl.fast.compiled import CompiledEnv

IDS = [f"metarl/{name}-v0" for names in SIMULATED.values() for name in names]
BESIDE = [
    ("metarl/HalfCheetahVel-v0", "HalfCheetah-v5", {}),
    ("metarl/AntDir-v0", "Ant-v5", {"include_cfrc_ext_in_observation": False}),
    ("metarl/HumanoidDir-v0", "Humanoid-v5", {"include_cfrc_ext_in_observation": False}),
    ("metarl/Walker2dRandParams-v0", "Walker2d-v5", {}),
    ("metarl/HopperRandParams-v0", "Hopper-v5", {}),
]


def beside(id: str, theirs: str, options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Our family, and Gymnasium's environment in its first state; MuJoCo logs its warning of the XML to the folder."""
    monkeypatch.chdir(tmp_path)
    family = metarl.make(id)
    env = gymnasium.make(theirs, **options).unwrapped
    env.reset(seed=0)
    task = family.sample_tasks(rng.key(0), 1)
    state = family.reset(task, rng.key(3)[None])
    model = family.robot.simulator.model
    env.set_state(state.state[0, 1 : 1 + model.nq].numpy(), state.state[0, 1 + model.nq :].numpy())
    return family, env, task, state


def nominal(family) -> BodyScales:
    """The task that changes nothing."""
    return BodyScales(*[torch.ones_like(part) for part in family.sample_tasks(rng.key(0), 1)])


def action_of(family, t: int) -> torch.Tensor:
    space = family.action_space
    return torch.as_tensor(space.high) * (2.0 * rng.uniform(rng.fold(rng.key(5), t), len(space.high)) - 1.0)


def expected(family, task, before: Physics, after: Physics, action: torch.Tensor, theirs: float, info: dict) -> float:
    """What our reward must be, from what Gymnasium's environment says of its own."""
    if isinstance(task, Velocity):
        speed = float(family.robot.speed(before, after)[0])
        assert speed == pytest.approx(info["x_velocity"], abs=1e-5)
        return -abs(info["x_velocity"] - float(task.velocity[0])) - 0.05 * float(action.square().sum())
    if isinstance(task, BodyScales):
        return theirs + 1.0 - info["reward_survive"]  # ours is paid for the step with which it falls, too
    weight = 1.25 if type(family) is HumanoidDir else 1.0
    velocity = np.array([info["x_velocity"], info["y_velocity"]])
    forward = weight * float(task.direction[0].numpy() @ velocity)
    alive = 5.0 if type(family) is HumanoidDir else 1.0
    return forward + info["reward_ctrl"] + info["reward_contact"] + alive


@pytest.mark.parametrize(("id", "theirs", "options"), BESIDE)
def test_steps_are_those_of_gymnasium(id, theirs, options, tmp_path, monkeypatch):
    family, env, task, state = beside(id, theirs, options, tmp_path, monkeypatch)
    if isinstance(task, BodyScales):
        task = nominal(family)
    np.testing.assert_allclose(family.observe(task, state)[0].numpy(), env._get_obs(), rtol=1e-5, atol=1e-5)
    for t in range(40):
        action = action_of(family, t)
        before, (state, reward, ended) = state, family.step(task, state, action[None], rng.key(0)[None])
        obs, their_reward, their_end, _, info = env.step(action.numpy().astype(np.float64))
        np.testing.assert_allclose(family.observe(task, state)[0].numpy(), obs, rtol=1e-4, atol=1e-4)
        assert bool(ended[0]) == their_end
        assert float(reward[0]) == pytest.approx(
            expected(family, task, before, state, action, their_reward, info), abs=1e-3
        )
        if their_end:
            break
    assert t > 10
    env.close()


@pytest.mark.parametrize(("id", "theirs", "options"), BESIDE)
def test_the_model_and_the_spaces_are_gymnasium_s(id, theirs, options, tmp_path, monkeypatch):
    family, env, _, _ = beside(id, theirs, options, tmp_path, monkeypatch)
    ours = family.robot.simulator.model
    for name in dir(ours):  # all but textures, and where names lie in memory
        value = getattr(ours, name)
        if isinstance(value, np.ndarray) and not name.startswith(("name", "tex", "mat", "_sizes")):
            np.testing.assert_array_equal(value, getattr(env.model, name), err_msg=name)
    assert family.observation_space.shape == env.observation_space.shape
    assert family.action_space == env.action_space
    assert family.robot.dt == pytest.approx(env.dt)
    assert family.robot.noise == env._reset_noise_scale
    env.close()


def test_the_start_is_spread_as_gymnasium_s():
    robot = half_cheetah()
    start = robot.start(rng.fold(rng.key(0), torch.arange(4000)))
    positions, velocities = robot.simulator.positions(start), robot.simulator.velocities(start)
    assert positions.abs().max() <= 0.1 and positions.std(0).sub(0.1 / 3**0.5).abs().max() < 0.002
    assert velocities.mean(0).abs().max() < 0.007 and velocities.std(0).sub(0.1).abs().max() < 0.005


@pytest.mark.parametrize("id", ["metarl/HalfCheetahVel-v0", "metarl/AntDir-v0", "metarl/Walker2dRandParams-v0"])
def test_threads_change_nothing(id, monkeypatch):
    """Two threads, one, and a row alone give the same bits."""
    family = metarl.make(id)
    task = family.sample_tasks(rng.key(0), 70)
    keys = rng.fold(rng.key(1), torch.arange(70))
    actions = [torch.stack([action_of(family, 100 * t + i) for i in range(70)]) for t in range(3)]
    played = {}
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        state = family.reset(task, keys)
        for action in actions:
            state, reward, _ = family.step(task, state, action, keys)
        played[threads] = (*state, reward)
    assert set(family.robot.simulator._pools) >= {1, 2}
    for one, two in zip(*played.values(), strict=True):
        assert torch.equal(one, two)
    alone, state = take(task, slice(69, 70)), family.reset(take(task, slice(69, 70)), keys[69:])
    for action in actions:
        state, reward, _ = family.step(alone, state, action[69:], keys[69:])
    assert torch.equal(state.state[0], played[2][0][69]) and torch.equal(reward[0], played[2][2][69])


def test_a_task_of_bodies_is_what_gymnasium_s_environment_does_with_that_body(tmp_path, monkeypatch):
    family, env, task, state = beside("metarl/HopperRandParams-v0", "Hopper-v5", {}, tmp_path, monkeypatch)
    model = env.model
    model.body_mass[1:] *= task.mass[0].double().numpy()
    model.body_inertia[1:] *= task.mass[0].double().numpy()[:, None]
    model.geom_friction[:] *= task.friction[0].double().numpy().reshape(-1, 3)
    model.dof_damping[3:] *= task.damping[0].double().numpy()
    mujoco.mj_setConst(model, mujoco.MjData(model))
    env.set_state(state.state[0, 1:7].numpy(), state.state[0, 7:].numpy())
    plain, stock = family.step(nominal(family), state, action_of(family, 0)[None], rng.key(0)[None])[0], None
    for t in range(20):
        state, _, ended = family.step(task, state, action_of(family, t)[None], rng.key(0)[None])
        obs, _, their_end, _, _ = env.step(action_of(family, t).numpy().astype(np.float64))
        stock = state if stock is None else stock
        np.testing.assert_allclose(family.observe(task, state)[0].numpy(), obs, rtol=1e-4, atol=1e-4)
        assert bool(ended[0]) == their_end
    assert not torch.allclose(plain.state, stock.state, atol=1e-6), "the body makes a difference"
    assert load("hopper.xml").body_mass[1] == pytest.approx(env.model.body_mass[1] / float(task.mass[0, 0]))
    env.close()


def test_inertia_stays_physical_and_models_are_made_once():
    family = Walker2dRandParams()
    task = family.sample_tasks(rng.key(0), 8, "ood")
    models = family.bodies.of(task)
    base = load("walker2d_v5.xml")
    for model in models:
        np.testing.assert_allclose(model.body_inertia[1:] / model.body_mass[1:, None],
                                   base.body_inertia[1:] / base.body_mass[1:, None])  # fmt: skip
        assert model.body_subtreemass[0] == pytest.approx(model.body_mass.sum()), "what follows from masses follows"
    assert family.bodies.of(task) is models
    again = family.bodies.of(BodyScales(*[part.clone() for part in task]))
    assert all(one is other for one, other in zip(models, again, strict=True))
    logs = task.mass.log() / np.log(1.5)
    assert logs.abs().min() >= 3.0 - 1e-5 and logs.abs().max() <= 4.0 + 1e-5
    assert (family.sample_tasks(rng.key(0), 300).damping.log() / np.log(1.3)).abs().max() <= 3.0 + 1e-5


@pytest.mark.parametrize("family", [Walker2dRandParams(), HopperRandParams()], ids=lambda f: type(f).__name__)
def test_the_strangest_bodies_stay_finite(family, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = BatchEnv(family, family.sample_tasks(rng.key(0), 60, "ood"), rng.key(1))
    env.reset()
    for t in range(200):
        outcome, step = env.step(torch.stack([action_of(family, 60 * t + i) for i in range(60)]))
        assert outcome.reward.isfinite().all() and step.obs.isfinite().all()
    assert not list(tmp_path.iterdir()), "MuJoCo had nothing to warn of"


def test_the_speed_of_the_centre_of_mass_is_the_mean_of_the_bodies_speeds():
    """MAML's cheetah: between two states 0.01 s apart it is the difference of the centres of mass."""
    family = HalfCheetahVelMAML()
    task = Velocity(torch.tensor([1.0]))
    state = family.reset(task, rng.key(0)[None])
    for t in range(30):
        state, reward, _ = family.step(task, state, action_of(family, t)[None], rng.key(0)[None])
    model = family.robot.simulator.model
    data = mujoco.MjData(model)

    def centre(positions: np.ndarray) -> float:
        data.qpos[:] = positions
        mujoco.mj_kinematics(model, data)
        return float(model.body_mass @ data.xipos[:, 0] / model.body_mass.sum())

    h = 1e-6
    positions, velocities = state.state[0, 1:10].numpy(), state.state[0, 10:].numpy()
    numeric = (centre(positions + h * velocities) - centre(positions - h * velocities)) / (2 * h)
    assert float(state.reading[0, 0]) == pytest.approx(numeric, abs=1e-6)
    effort = float(action_of(family, 29).square().sum())
    assert float(reward[0]) == pytest.approx(-abs(numeric - 1.0) - 0.05 * effort, abs=1e-5)
    assert family.robot.dt == pytest.approx(0.01) and abs(numeric - velocities[0]) > 1e-3, "not the torso's own speed"


def test_rewards_follow_the_task():
    """The same motion pays by the goal alone."""
    action = torch.zeros(2, 8)
    goals = Place(torch.tensor([[1.0, 0.0], [0.0, -3.0]]))
    family = AntGoal()
    state = family.reset(goals, rng.key(0).repeat(2))
    after, reward, ended = family.step(goals, state, action, rng.key(0).repeat(2))
    expected = -(after.reading[:, :2] - goals.position).abs().sum(-1) - 0.0005 * after.reading[:, 2]
    torch.testing.assert_close(reward, expected.float())
    assert not ended.any()
    ways = Heading(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    ant = AntDir()
    state = ant.reset(ways, rng.key(0).repeat(2))
    _, reward, _ = ant.step(ways, state, action, rng.key(0).repeat(2))
    after, _, _ = ant.step(ways, state, action, rng.key(0).repeat(2))
    speed = (after.reading[0, 0] - state.reading[0, 0]) / 0.05
    assert float(reward[0] - reward[1]) == pytest.approx(2 * float(speed), abs=1e-5)
    directions = set(HalfCheetahDir().sample_tasks(rng.key(0), 50, "all").direction.tolist())
    assert directions == {-1.0, 1.0}


def test_an_action_beyond_the_range_is_clipped():
    family, key = HalfCheetahVel(), rng.key(0)[None]
    task = family.sample_tasks(rng.key(0), 1)
    state = family.reset(task, key)
    far, edge = (family.step(task, state, torch.full((1, 6), value), key) for value in (9.0, 1.0))
    assert torch.equal(far[0].state, edge[0].state) and torch.equal(far[1], edge[1])


def test_lists_of_tasks_are_fixed_disjoint_and_of_the_paper_s_length():
    family = HalfCheetahVel()
    seen = {}
    for split in ("train", "test"):
        draws = [family.sample_tasks(rng.key(seed), 3000, split).velocity.tolist() for seed in (0, 1)]
        assert set(draws[0]) == set(draws[1]) and draws[0] != draws[1]
        seen[split] = set(draws[0])
    assert len(seen["train"]) == 100 and len(seen["test"]) == 30 and not seen["train"] & seen["test"]
    assert min(seen["train"]) < 0.2 and max(seen["train"]) > 2.8
    fresh = HalfCheetahVel(train_tasks=None).sample_tasks(rng.key(0), 3000).velocity
    assert len(set(fresh.tolist())) > 2990
    with pytest.raises(ValueError, match="train_tasks must be a whole number of at least 1, got 0"):
        HalfCheetahVel(train_tasks=0)


def test_half_circle_has_an_outside():
    plain, half = metarl.make("metarl/AntDir2D-v0"), metarl.make("metarl/AntDir2D-v0", half_circle=True)
    assert plain.splits == ("train", "valid", "test") and half.splits == ("train", "valid", "test", "ood")
    assert (plain.sample_tasks(rng.key(0), 100).direction[:, 1] < 0).any()
    assert (half.sample_tasks(rng.key(0), 100).direction[:, 1] >= 0).all()
    assert (half.sample_tasks(rng.key(0), 100, "ood").direction[:, 1] <= 0).all()


@pytest.mark.parametrize("id", [id for id, _, _ in BESIDE])
def test_a_step_hardly_depends_on_what_the_solver_remembers(id):
    """From each state of an uninterrupted simulation, whose solver starts where the step before ended."""
    family, key = metarl.make(id), rng.key(3)[None]
    simulator = family.robot.simulator
    coarse = 1e-5 if hasattr(mujoco, "MjLogConfig") else 1e-4  # the solver of MuJoCo 3 stops earlier
    model, spec = simulator.model, mujoco.mjtState.mjSTATE_FULLPHYSICS
    start = family.reset(family.sample_tasks(rng.key(0), 1), key)
    data, state = mujoco.MjData(model), start.state[0].numpy().copy()
    mujoco.mj_setState(model, data, state, spec)
    for t in range(100):
        action = action_of(family, t)
        ours = simulator.advance(Physics(torch.from_numpy(state.copy())[None], start.reading), action[None])
        data.ctrl[:] = action.double().numpy()
        mujoco.mj_step(model, data, simulator.frame_skip)
        mujoco.mj_getState(model, data, state, spec)
        np.testing.assert_allclose(ours.state[0].numpy(), state, rtol=0, atol=coarse if "Humanoid" in id else 1e-10)


def test_a_trial_goes_on_where_a_robot_falls():
    family = metarl.make("metarl/HopperRandParams-v0", horizon=60)
    env = BatchEnv(family, family.sample_tasks(rng.key(0), 20), rng.key(1))
    env.reset()
    while not env.all_done():
        env.step(torch.ones(20, 3))
    assert (env.episode >= 2).all() and env._step < 120, "all fell early"


def test_without_mujoco_the_sentence_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    simulator.load.cache_clear()
    with pytest.raises(ValueError, match=r"MuJoCo is needed.*pip install 'metarl\[mujoco\]'"):
        metarl.make("metarl/HalfCheetahVel-v0")
    from metarl.cli.envs import main

    assert main([]) == 0, "the table goes without"
    assert "metarl/GridNavi-v0" in capsys.readouterr().out
    assert main(["HalfCheetahVel"]) == 2
    assert "pip install 'metarl[mujoco]'" in capsys.readouterr().err


@pytest.mark.parametrize("id", IDS)
def test_gymnasium_makes_it(id):
    env = gymnasium.make(f"metarl:{id}", render_mode="rgb_array")
    env.reset(seed=0)
    env.step(env.action_space.sample())
    assert env.render().ndim == 3
    env.close()


def test_a_copy_of_a_simulator_has_threads_of_its_own():
    one = half_cheetah().simulator
    other = copy.deepcopy(one)
    assert isinstance(other, Simulator) and other._pools is not one._pools and other.frame_skip == 5


def test_states_are_values():
    """A state says all: to go on from a stored one is to go on from the first."""
    family, key = HalfCheetahVel(), rng.key(0)[None]
    task = family.sample_tasks(rng.key(0), 1)
    state = family.reset(task, key)
    stored: list[Physics] = []
    for t in range(10):
        stored.append(state)
        state, _, _ = family.step(task, state, action_of(family, t)[None], key)
    again = stored[4]
    for t in range(4, 10):
        again, _, _ = family.step(task, again, action_of(family, t)[None], key)
    assert torch.equal(again.state, state.state)


def test_a_compiler_that_cannot_leaves_plain_steps():
    family = HalfCheetahVel()
    task = family.sample_tasks(rng.key(0), 2)
    compiled, plain = CompiledEnv(family, task, rng.key(1)), BatchEnv(family, task, rng.key(1))
    compiled.reset(), plain.reset()
    action = torch.stack([action_of(family, i) for i in range(2)])
    for one, other in zip(compiled.step(action)[0], plain.step(action)[0], strict=True):
        assert torch.equal(one, other)
    assert compiled.why_not is not None


def test_what_is_being_recorded_is_told_at_once(monkeypatch):
    """As a plain RuntimeError, after which `Captured` goes on without a recording."""
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    family = HalfCheetahVel()
    state = Physics(torch.zeros(2, 19, dtype=torch.float64, device="meta"), torch.zeros(2, 0, device="meta"))
    with pytest.raises(RuntimeError, match="MuJoCo steps on the CPU, which cannot be recorded"):
        family.robot.move(state, torch.zeros(2, 6, device="meta"))


@pytest.mark.gpu
@pytest.mark.parametrize("id", IDS)
def test_a_gpu_gets_its_states_back(id):
    family = metarl.make(id)
    keys = rng.fold(rng.key(1), torch.arange(40))
    task = family.sample_tasks(rng.key(0), 40)
    action = torch.stack([action_of(family, i) for i in range(40)])
    on_gpu, key, there = to_device(task, "cuda"), keys.cuda(), action.cuda()
    state = family.reset(task, keys)
    here, reward, ended = family.step(task, state, action, keys)
    state, *rest = family.step(on_gpu, to_device(state, "cuda"), there, key)
    assert state.state.is_cuda and family.observe(on_gpu, state).is_cuda
    torch.testing.assert_close(state.state.cpu(), here.state)
    torch.testing.assert_close(rest[0].cpu(), reward, atol=1e-4, rtol=1e-4)
    assert torch.equal(rest[1].cpu(), ended)


LOUD = """
import os, sys, torch, mujoco, metarl
from metarl.core import rng
from metarl.envs.mujoco import simulator
torch.set_num_threads(2)
if sys.argv[1] == "older":  # MuJoCo before 4.0 has no such configuration
    with_it = simulator.quiet
    simulator.quiet = lambda module: with_it(module, modern=False)
cheetahs, ants, others = ("Vel", "VelMAML", "DirSparse"), ("Goal", "VelMAML"), ("HumanoidDir", "HopperRandParams")
for id in (*("HalfCheetah" + name for name in cheetahs), *("Ant" + name for name in ants), *others):
    family = metarl.make(f"metarl/{id}-v0")
    task, keys = family.sample_tasks(rng.key(0), 20), rng.fold(rng.key(0), torch.arange(20))
    for action in (float("nan"), float("inf"), 1e30):
        state = family.reset(task, keys)
        for _ in range(3):
            state, reward, _ = family.step(task, state, torch.full((20, *family.action_space.shape), action), keys)
    for wrong in (float("nan"), 1e12):  # positions and speeds
        broken = state._replace(state=torch.full_like(state.state, wrong))
        family.step(task, broken, torch.zeros(20, *family.action_space.shape), keys)
sys.stdout.flush()
print("quiet", os.listdir("."))
data = mujoco.MjData(family.robot.simulator.model)
data.ctrl[:] = float("nan")
mujoco.mj_step(family.robot.simulator.model, data)
print("loud", os.listdir("."))
"""


@pytest.mark.parametrize("version", ["4.0", "older"])
def test_mujoco_says_nothing_of_its_own(version: str, tmp_path: Path):
    """Neither on the terminal nor by a file in the working directory; a simulation of the user's own warns as ever."""
    environment = os.environ | {"PYTHONPATH": str(Path(metarl.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOUD, version],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first == "quiet []" and rest[-1] == "loud ['MUJOCO_LOG.TXT']"
    assert done.stderr.count("WARNING") + done.stdout.count("WARNING") == 1, "the user's own"


@pytest.mark.skipif(not hasattr(mujoco, "MjLogConfig"), reason="MuJoCo has this configuration from 4.0 on")
def test_several_at_once_leave_the_settings_as_they_were():
    """Whichever ends first, and whatever happens inside."""
    before = mujoco.MjLogConfig.get()
    outer, inner = simulator.quiet(mujoco), simulator.quiet(mujoco)
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    assert not mujoco.MjLogConfig.get().logto_console and not mujoco.MjLogConfig.get().logto_file
    inner.__exit__(None, None, None)
    with pytest.raises(RuntimeError), simulator.quiet(mujoco):
        raise RuntimeError
    after = mujoco.MjLogConfig.get()
    assert (after.logto_console, after.logto_file) == (before.logto_console, before.logto_file)
    handler = mujoco.get_mju_user_warning()
    with simulator.quiet(mujoco, modern=False):
        assert mujoco.get_mju_user_warning() is not handler
    assert mujoco.get_mju_user_warning() is handler
