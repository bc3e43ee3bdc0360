"""Classic control with varying dynamics: equal to Gymnasium's environments at nominal and at changed parameters.

Every draw is addressed, so each Monte-Carlo test passes always or never.
"""

import inspect
import math
import re

import gymnasium
import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from metarl.agents.reference.control import CartPoleRegulator, PendulumSwingUp, PushAlong
from metarl.core import rng
from metarl.core.batch_env import BatchEnv
from metarl.core.family import TaskFamily
from metarl.core.rollout import episode_returns, run_trial
from metarl.core.tree import num_rows, take
from metarl.envs.control.acrobot import Acrobot, AcrobotState, accelerations
from metarl.envs.control.cartpole import CartPole
from metarl.envs.control.mountain_car import MountainCar, MountainCarContinuous
from metarl.envs.control.pendulum import Pendulum
from metarl.testing import check_family

FAMILIES: list[type[TaskFamily]] = [CartPole, Pendulum, Acrobot, MountainCar, MountainCarContinuous]
GYMNASIUM = {
    CartPole: "CartPole-v1",
    Pendulum: "Pendulum-v1",
    Acrobot: "Acrobot-v1",
    MountainCar: "MountainCar-v0",
    MountainCarContinuous: "MountainCarContinuous-v0",
}
each_family = pytest.mark.parametrize("cls", FAMILIES)


def random_actions(family: TaskFamily, seed: int, rows: int) -> Tensor:
    key = rng.fold(rng.key(seed), torch.arange(rows))
    if isinstance(family.action_space, gymnasium.spaces.Discrete):
        return rng.integers(key, 1, int(family.action_space.n))[:, 0]
    return float(family.action_space.high[0]) * (2 * rng.uniform(key, 1) - 1)


def nominal(family: TaskFamily, rows: int):
    task = family.sample_tasks(rng.key(0), 1)
    return type(task)(*(torch.ones(rows) for _ in task))


def configured(cls: type[TaskFamily], task) -> gymnasium.Env:
    """Gymnasium's environment with the parameters of a task of one row, derived ones computed anew."""
    env = gymnasium.make(GYMNASIUM[cls], disable_env_checker=True).unwrapped
    scale = {name: float(value) for name, value in zip(task._fields, task, strict=True)}
    if cls is CartPole:
        env.gravity, env.masscart, env.force_mag = (9.8 * scale["gravity"], scale["cart_mass"], 10 * scale["force"])
        env.masspole, env.length = 0.1 * scale["pole_mass"], 0.5 * scale["half_length"]
        env.total_mass, env.polemass_length = env.masspole + env.masscart, env.masspole * env.length
    elif cls is Pendulum:
        env.g, env.m, env.l, env.max_torque = 10 * scale["gravity"], scale["mass"], scale["length"], 2 * scale["torque"]
    elif cls is Acrobot:
        env.LINK_MASS_1, env.LINK_MASS_2 = scale["mass_1"], scale["mass_2"]
        env.LINK_LENGTH_1, env.LINK_LENGTH_2 = scale["length_1"], scale["length_2"]
        env.LINK_COM_POS_1, env.LINK_COM_POS_2 = scale["length_1"] / 2, scale["length_2"] / 2
        env.LINK_MOI = scale["mass_1"] * scale["length_1"] ** 2  # Gymnasium has one for both links
    elif cls is MountainCar:
        env.gravity, env.force = 0.0025 * scale["gravity"], 0.001 * scale["force"]
    else:
        assert scale["gravity"] == 1.0, "Gymnasium's gravity is a literal"
        env.power = 0.0015 * scale["force"]
    return env


def step_beside_gymnasium(cls: type[TaskFamily], task, steps: int = 200) -> None:
    """An episode of random actions per row, each step from a state that both have; a row that ends starts again."""
    family, rows = cls(), num_rows(task)
    env = BatchEnv(family, task, rng.key(1), episodes=steps)
    env.reset()
    theirs = [configured(cls, take(task, slice(i, i + 1))) for i in range(rows)]
    for t in range(steps):
        before = torch.stack(env.state).double().numpy()
        action = random_actions(family, t, rows)
        outcome, _ = env.step(action)
        given = action.double().numpy() * (task.torque[:, None].double().numpy() if cls is Pendulum else 1)
        for i, their in enumerate(theirs):
            their.state, their.steps_beyond_terminated = before[:, i].copy(), None
            obs, reward, terminated, _, _ = their.step(given[i] if given.ndim == 2 else int(given[i]))
            np.testing.assert_allclose(outcome.final_obs[i].numpy(), obs, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(float(outcome.reward[i]), reward, rtol=1e-5, atol=1e-6)
            assert bool(outcome.terminated[i]) == terminated


# ---- the contract --------------------------------------------------------------------------------------------------


@each_family
def test_contract(cls):
    check_family(cls())


@each_family
def test_docstrings_follow_one_schema(cls):
    headings = re.findall(r"^(\w[\w ]*):$", inspect.cleandoc(cls.__doc__), re.MULTILINE)
    assert headings == [
        "Description", "What varies", "Splits", "Actions", "Observations", "Rewards", "Endings", "Optimum", "Source",
        "Version history",
    ]  # fmt: skip


@each_family
def test_wrong_arguments_are_named(cls):
    for wrong in ("horizon", "episodes_per_trial"):
        with pytest.raises(ValueError, match=f"{wrong} must be a whole number of at least"):
            cls(**{wrong: 0})
    for spread in (1.0, 0, -2, math.nan, math.inf, 11, "3", True):
        with pytest.raises(ValueError, match="spread must be a number above 1, up to 10, got"):
            cls(spread=spread)


@each_family
def test_spaces_and_horizon_are_gymnasiums(cls):
    family, spec = cls(), gymnasium.spec(GYMNASIUM[cls])
    theirs = gymnasium.make(GYMNASIUM[cls])
    assert family.horizon == spec.max_episode_steps
    assert family.action_space == theirs.action_space
    np.testing.assert_allclose(family.observation_space.low, theirs.observation_space.low, rtol=1e-6)
    np.testing.assert_allclose(family.observation_space.high, theirs.observation_space.high, rtol=1e-6)


@pytest.mark.parametrize("spread", [1.5, 3])
@each_family
def test_splits(cls, spread):
    """Every multiplier log-uniform: inside [1/spread, spread] in training, each one outside of it in `ood`."""
    family = cls() if spread == 1.5 else cls(spread=spread)
    logs = {split: torch.stack(list(family.sample_tasks(rng.key(0), 4000, split))).log() for split in family.splits}
    inner, outer = math.log(spread), math.log(2 * spread)
    assert all(space.low == np.float32(1 / spread) and space.high == spread for space in family.task_space.values())
    for split in ("train", "test"):
        assert logs[split].abs().max() <= inner + 1e-6
        for field in logs[split]:
            assert scipy.stats.kstest(field.numpy(), "uniform", (-inner, 2 * inner)).pvalue > 0.001
    assert not set(logs["train"].flatten().tolist()) & set(logs["ood"].flatten().tolist())
    assert logs["ood"].abs().min() >= inner - 1e-6 and logs["ood"].abs().max() <= outer + 1e-6
    for field in logs["ood"]:
        assert scipy.stats.kstest(field.abs().numpy(), "uniform", (inner, outer - inner)).pvalue > 0.001
        assert abs(float((field > 0).double().mean()) - 0.5) < 0.04
    correlation = np.corrcoef(logs["ood"].numpy()) - np.eye(len(logs["ood"]))
    assert np.abs(correlation).max() < 0.08, "the multipliers are drawn independently"


@each_family
def test_row_of_a_batch_equals_a_batch_of_one(cls):
    """Over a trial of short episodes, autoreset included, in a batch of a size that vector registers do not divide."""
    family, size = cls(horizon=20), 37
    task = family.sample_tasks(rng.key(1), size, "ood")

    def trace(rows: slice) -> list[Tensor]:
        env = BatchEnv(family, take(task, rows), rng.key(2), episodes=3, first_row=rows.start)
        env.reset()
        return [torch.stack([s.prev_reward, s.prev_done, *s.obs.T]) for s in (env.step(a[rows])[1] for a in actions)]

    actions = [random_actions(family, t, size) for t in range(45)]
    whole = torch.stack(trace(slice(0, size)))
    for i in (0, 5, 17, 36):
        assert torch.equal(whole[:, :, i : i + 1], torch.stack(trace(slice(i, i + 1))))


# ---- physics -------------------------------------------------------------------------------------------------------


@each_family
def test_nominal_is_gymnasium(cls):
    step_beside_gymnasium(cls, nominal(cls(), 10))


@each_family
def test_changed_parameters_are_gymnasium_with_changed_attributes(cls):
    """Trap: constants derived from a parameter (total mass) kept stale when the parameter changes."""
    for split in ("train", "ood"):
        task = cls().sample_tasks(rng.key(3), 4, split)
        if cls is Acrobot:  # one moment of inertia for both links: m1 l1² = m2 l2²
            task = task._replace(mass_2=task.mass_1 * (task.length_1 / task.length_2) ** 2)
        if cls is MountainCarContinuous:
            task = task._replace(gravity=torch.ones(4))
        step_beside_gymnasium(cls, task, steps=60)


def test_ends_are_gymnasiums():
    """From states near the goal or the limit, where random actions end the episode."""
    for cls, state in (
        (CartPole, [2.39, 1.0, 0.0, 0.0]),
        (CartPole, [0.0, 0.0, -0.209, -0.5]),
        (Acrobot, [2.0, 0.1, 2.0, 0.0]),
        (MountainCar, [0.49, 0.03]),
        (MountainCar, [-1.19, -0.06]),
        (MountainCarContinuous, [0.44, 0.03]),
        (MountainCarContinuous, [-1.19, -0.06]),
    ):
        family = cls()
        task = nominal(family, 1)
        state_type = type(family.reset(task, torch.zeros(1, dtype=torch.int64)))
        theirs = configured(cls, task)
        theirs.reset(seed=0)
        theirs.state = np.array(state)
        action = random_actions(family, 0, 1)
        obs, reward, terminated, _, _ = theirs.step(action[0].numpy() if action.ndim == 2 else int(action))
        ours = family.step(task, state_type(*torch.tensor(state)[:, None]), action, torch.zeros(1, dtype=torch.int64))
        np.testing.assert_allclose(family.observe(task, ours[0])[0].numpy(), obs, rtol=1e-5, atol=1e-6)
        assert float(ours[1]) == pytest.approx(reward, rel=1e-5) and bool(ours[2]) == terminated
        assert terminated == (state[0] > -1)


def test_mountain_car_gravity_scales_both_cars_alike():
    """Gymnasium's continuous car has its gravity as a literal; it must fall as the other one does."""
    task = MountainCar().sample_tasks(rng.key(0), 50, "ood")
    state = MountainCar().reset(task, rng.fold(rng.key(0), torch.arange(50)))
    zero = torch.zeros(50, dtype=torch.int64)
    discrete = MountainCar().step(task, state, zero + 1, zero)[0]
    continuous = MountainCarContinuous().step(task, state, torch.zeros(50, 1), zero)[0]
    assert torch.equal(discrete.speed, continuous.speed) and discrete.speed.std() > 0


def test_acrobot_conserves_energy():
    """The links' energy changes by the motor's work alone, for any masses and lengths: dE/dt = torque · speed 2."""
    n = 200
    task = type(nominal(Acrobot(), 1))(*(field.double() for field in Acrobot().sample_tasks(rng.key(0), n, "ood")))
    start = 3 * (2 * rng.uniform(rng.fold(rng.key(1), torch.arange(n)), 5).double() - 1)
    state = AcrobotState(*(start[:, i].clone().requires_grad_() for i in range(4)))
    m1, m2, l1, l2 = task
    a, b = state.angle_1, state.angle_1 + state.angle_2
    v1, v2 = state.speed_1, state.speed_1 + state.speed_2
    square_2 = (l1 * v1) ** 2 + (l2 * v2 / 2) ** 2 + l1 * l2 * v1 * v2 * torch.cos(a - b)
    kinetic = 0.5 * (m1 * (l1 * v1 / 2) ** 2 + m1 * l1**2 * v1**2 + m2 * square_2 + m2 * l2**2 * v2**2)
    height = m1 * (-l1 * torch.cos(a) / 2) + m2 * (-l1 * torch.cos(a) - l2 * torch.cos(b) / 2)
    gradient = torch.autograd.grad((kinetic + 9.8 * height).sum(), list(state))
    rate = accelerations(task, state, start[:, 4])
    power = sum(g * r for g, r in zip(gradient, rate, strict=True))
    torch.testing.assert_close(power, start[:, 4] * state.speed_2)


def test_pendulum_is_charged_for_the_torque_that_acts():
    family = Pendulum()
    task = nominal(family, 3)._replace(torque=torch.tensor([0.5, 1.0, 2.0]))
    state = type(family.reset(task, torch.zeros(3, dtype=torch.int64)))(torch.zeros(3), torch.zeros(3))
    after, reward, _ = family.step(task, state, torch.full((3, 1), 9.0), torch.zeros(3, dtype=torch.int64))
    assert reward.tolist() == pytest.approx([-0.001, -0.004, -0.016])
    assert after.speed.tolist() == pytest.approx([0.15, 0.3, 0.6])


@each_family
def test_starts_are_gymnasiums(cls):
    family, n = cls(), 4000
    task = nominal(family, n)
    state = family.reset(task, rng.fold(rng.key(0), torch.arange(n)))
    for i, field in enumerate(state):
        low, high = {
            CartPole: (-0.05, 0.05),
            Pendulum: ((-np.pi, np.pi), (-1.0, 1.0))[i % 2],
            Acrobot: (-0.1, 0.1),
        }.get(cls, (-0.6, -0.4))
        if cls in (MountainCar, MountainCarContinuous) and i == 1:
            assert (field == 0).all()
        else:
            assert scipy.stats.kstest(field.numpy(), "uniform", (low, high - low)).pvalue > 0.001


# ---- reference policies --------------------------------------------------------------------------------------------


def returns(agent, family: TaskFamily, task) -> Tensor:
    return episode_returns(run_trial(agent, family, task, rng.key(1), episodes=1)[0], 1)[:, 0]


def test_the_regulator_keeps_poles_up():
    family = CartPole()
    assert (returns(CartPoleRegulator(told=False), family, nominal(family, 40)) == 500).all()
    train = family.sample_tasks(rng.key(0), 60)
    assert (returns(CartPoleRegulator(), family, train) == 500).all()
    ood = family.sample_tasks(rng.key(0), 150, "ood")
    told, blind = (returns(CartPoleRegulator(told), family, ood).mean() for told in (True, False))
    assert told > 470 and 200 < blind < 350, "in `ood` one policy for all tasks does not do"


def test_the_pendulum_is_swung_up():
    family = Pendulum()
    assert returns(PendulumSwingUp(), family, nominal(family, 300)).mean() > -165
    train = family.sample_tasks(rng.key(0), 300)
    told, blind = (returns(PendulumSwingUp(told), family, train).mean() for told in (True, False))
    assert told > -200 and blind < told - 50


def test_pushing_along_the_velocity_reaches_the_goal():
    for cls, least, blind in ((MountainCar, -121, -200.0), (MountainCarContinuous, 89, -30), (Acrobot, -100, -480)):
        family = cls()
        task = nominal(family, 100)
        assert returns(PushAlong(family), family, task).mean() > least > blind


@pytest.mark.parametrize("agent", [CartPoleRegulator(), PendulumSwingUp()])
def test_who_plans_with_the_task_must_be_told_it(agent):
    with pytest.raises(ValueError, match="must be told the task"):
        agent.begin(3)


# ---- pictures ------------------------------------------------------------------------------------------------------


@each_family
def test_pictures(cls):
    family = cls()
    task = family.sample_tasks(rng.key(0), 1, "test")
    env = BatchEnv(family, task, rng.key(0))
    env.reset()
    states = [env.state]
    for t in range(30):
        env.step(random_actions(family, t, 1))
        states.append(env.final_state)
    pictures = [family.render(task, seen) for seen in ([], states[:1], states)]
    for image in pictures:
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and min(image.shape[:2]) > 100
        assert max(image.shape[:2]) < 1500
    assert not np.array_equal(pictures[1], pictures[2])
