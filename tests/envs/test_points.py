"""Points in the plane: exact optima, played and against independent computations; splits, endings, searches."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from test_envs import assert_mean, play, random_policy
from torch import Tensor

from metarl import evaluate
from metarl.agents.reference.points import ArcSearch, Navigation2DOracle, WindyPointOracle
from metarl.core import rng
from metarl.core.batch_env import BatchEnv
from metarl.core.family import TaskFamily
from metarl.core.tree import features, take
from metarl.envs.points.expectations import disc_corner, norms
from metarl.envs.points.half_circle import SemiCircle, SparsePointRobot
from metarl.envs.points.plane import Goal, Point
from metarl.envs.points.point_robot import PointRobot
from metarl.envs.points.windy import Wind, WindyPoint
from metarl.testing import check_family

FAMILIES: list[TaskFamily] = [
    PointRobot(),
    SparsePointRobot(),
    SparsePointRobot(dense=True),
    SemiCircle(),
    WindyPoint(),
]
each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda f: type(f).__name__)
ARCS = [SparsePointRobot(), SemiCircle()]


@each_family
def test_contract(family):
    check_family(family)


@pytest.mark.parametrize("cls", [PointRobot, SparsePointRobot, SemiCircle, WindyPoint])
@pytest.mark.parametrize("wrong", [{"horizon": 0}, {"episodes_per_trial": 1.5}])
def test_wrong_arguments_are_named(cls, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be a whole number of at least"):
        cls(**wrong)


@each_family
@pytest.mark.parametrize("split", ["test", "ood"])
def test_row_of_a_batch_equals_a_batch_of_one(family, split):
    task = family.sample_tasks(rng.key(0), 5, split)
    act = random_policy(family)
    whole = play(family, task, act)
    for i in (0, 3):
        env = BatchEnv(family, take(task, slice(i, i + 1)), rng.key(5), 1, first_row=i)
        step, total = env.reset(), torch.zeros(1, dtype=torch.float64)
        for t in range(env.max_steps):
            outcome, step = env.step(act(step._replace(obs=torch.zeros(5, 2)), t)[i : i + 1])
            total += outcome.reward
        assert torch.equal(total, whole[i])


@each_family
def test_never_terminates_and_truncates_at_the_horizon(family):
    env = BatchEnv(family, family.sample_tasks(rng.key(0), 4), rng.key(0), episodes=2)
    step, act = env.reset(), random_policy(family)
    for t in range(2 * family.horizon):
        outcome, step = env.step(act(step, t))
        assert not outcome.terminated.any()
        assert (outcome.truncated == ((t + 1) % family.horizon == 0)).all()


@pytest.mark.parametrize("family", FAMILIES[:-1])
def test_the_world_looks_the_same_whatever_the_goal(family):
    """A task-blind, memory-less policy cannot beat chance in episode 1: what it sees follows from its actions alone."""
    keys = rng.fold(rng.key(1), torch.zeros(50, dtype=torch.int64))
    task = family.sample_tasks(rng.key(0), 50, "test")
    state = family.reset(task, keys)
    for t in range(family.horizon):
        seen = family.observe(task, state)
        assert (seen == seen[:1]).all()
        move = rng.uniform(rng.fold(keys, t), 2) * 0.2 - 0.1
        state, _, _ = family.step(task, state, move, keys)


# ---- splits --------------------------------------------------------------------------------------------------------


def drawn(family: TaskFamily, split: str) -> Tensor:
    return features(family.sample_tasks(rng.key(0), 20_000, split))


@pytest.mark.parametrize(("family", "inner", "outer"), [(PointRobot(), 1.0, 1.5), (WindyPoint(), 0.08, 0.12)])
def test_square_splits(family, inner, outer):
    for split in ("train", "test"):
        values = drawn(family, split).flatten().numpy()
        assert scipy.stats.kstest(values, "uniform", (-inner, 2 * inner)).pvalue > 0.001
        assert values.min() >= -np.float32(inner) and values.max() < inner
    radius = drawn(family, "ood").abs().amax(-1)
    assert radius.min() >= inner and radius.max() <= np.float32(outer)
    assert not set(map(tuple, drawn(family, "train").tolist())) & set(map(tuple, drawn(family, "test").tolist()))


@pytest.mark.parametrize("family", ARCS)
def test_half_circle_splits(family):
    for split, sign in (("train", 1), ("test", 1), ("ood", -1)):
        goal = drawn(family, split)
        torch.testing.assert_close(goal.norm(dim=-1), torch.ones(len(goal)))
        angle = torch.atan2(sign * goal[:, 1], sign * goal[:, 0])  # in radians: uniform, not ±1
        assert scipy.stats.kstest(angle.numpy(), "uniform", (0, math.pi)).pvalue > 0.001
    train, test = (set(map(tuple, drawn(family, split).tolist())) for split in ("train", "test"))
    assert len(train & test) < 60  # an angle has 24 bits: 24 coincidences are to be expected


def test_starts():
    for family, low, high in ((PointRobot(), (-1, -1), (1, 1)), (SemiCircle(), (-1.5, -0.5), (1.5, 1.5))):
        task = family.sample_tasks(rng.key(0), 1)
        keys = rng.fold(rng.key(0), torch.arange(20_000))
        start = family.reset(Goal(task.position.expand(20_000, 2)), keys).position
        for axis in (0, 1):
            uniform = (low[axis], high[axis] - low[axis])
            assert scipy.stats.kstest(start[:, axis].numpy(), "uniform", uniform).pvalue > 0.001
        assert abs(np.corrcoef(start.T.numpy())[0, 1]) < 0.03


# ---- physics -------------------------------------------------------------------------------------------------------


def step_once(family: TaskFamily, task, position: list[float], action: list[float]) -> tuple[list[float], float]:
    state, reward, _ = family.step(task, Point(torch.tensor([position])), torch.tensor([action]), torch.zeros(1).long())
    return state.position[0].tolist(), float(reward)


def test_steps_and_rewards():
    goal = Goal(torch.tensor([[0.0, 1.0]]))
    place, reward = step_once(PointRobot(), goal, [0.0, 0.0], [9.0, -0.05])
    assert place == pytest.approx([0.1, -0.05]) and reward == pytest.approx(-math.hypot(0.1, 1.05))
    for action, distance in ((0.0, 0.25), (0.1, 0.15)):
        for family, inside in ((SparsePointRobot(), 1 - distance), (SemiCircle(), 1.0)):
            place, reward = step_once(family, goal, [0.0, 0.75], [0.0, action])
            assert reward == pytest.approx(inside if distance < 0.2 else 0.0)
        assert step_once(SparsePointRobot(dense=True), goal, [0.0, 0.75], [0.0, action])[1] == pytest.approx(-distance)


def test_wind_is_added_after_the_clip():
    wind = Wind(torch.tensor([[-0.05, 0.02]]))
    place, reward = step_once(WindyPoint(), wind, [0.05, 0.86], [0.0, 1.0])
    assert place == pytest.approx([0.0, 0.98]) and reward == 1
    assert step_once(WindyPoint(), wind, [0.05, 0.84], [0.0, 1.0])[1] == 0


# ---- optima --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "best", "within"),
    [
        (PointRobot(), -5.187, 0.4),
        (SparsePointRobot(), 13.38, 0.0),
        (SparsePointRobot(dense=True), -3.84, 0.0),
        (SemiCircle(), 51.82, 0.3),
    ],
)
def test_optimum_played(family, best, within):
    """10 000 episodes of full steps along each axis earn the stated mean, and what the oracle says of each task."""
    task = family.sample_tasks(rng.key(0), 10_000)
    assert_mean(family.oracle(task), best, within=0.08)
    for split in ("train", "ood"):
        task = family.sample_tasks(rng.key(0), 10_000, split)
        returns = play(family, task, lambda step, t, task=task: task.position - step.obs)[:, 0]
        if isinstance(family, SparsePointRobot):  # nothing is random
            torch.testing.assert_close(returns.float(), family.oracle(task), rtol=0, atol=1e-4)
        else:
            assert_mean(returns - family.oracle(task), 0.0, within=within)


@pytest.mark.parametrize("family", [PointRobot(horizon=7), SemiCircle(horizon=20)])
@pytest.mark.parametrize("goal", [(0.3, 0.95), (1.2, -1.4), (-0.6, -0.8)])
def test_expectation_over_starts_of_single_goals(family, goal):
    task = Goal(torch.tensor([goal]).expand(10_000, 2))
    returns = play(family, task, lambda step, t: task.position - step.obs)[:, 0]
    assert_mean(returns, float(family.oracle(task)[0]), within=0.5)


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (0.3, 2.0), (0.0, 1.0)])
def test_integrals_over_a_quadrant(a, b):
    numeric = scipy.integrate.dblquad(lambda y, x: math.hypot(x, y), 0, a, 0, b)[0]
    assert float(norms(*torch.tensor([a, b], dtype=torch.float64))) == pytest.approx(numeric, abs=1e-9)
    a, b = 0.2 * a, 0.1 * b
    area = scipy.integrate.quad(lambda x: min(b, math.sqrt(0.04 - x * x)), 0, a)[0]
    assert float(disc_corner(*torch.tensor([a, b], dtype=torch.float64), 0.2)) == pytest.approx(area, abs=1e-7)


@pytest.mark.parametrize("split", ["train", "ood"])
def test_windy_optimum_played(split):
    family = WindyPoint()
    task = family.sample_tasks(rng.key(0), 10_000, split)
    curve = evaluate(WindyPointOracle(), family, tasks=task)
    np.testing.assert_array_equal(curve.returns[0, :, 0], family.oracle(task))
    assert_mean(family.oracle(task), {"train": 13.209, "ood": 6.68}[split], within=0.35)
    if split == "train":
        assert_mean((family.oracle(task) == 0).float(), 0.1175, within=0.015)


@pytest.mark.parametrize(
    "wind", [(0.0, 0.0), (0.072, -0.028), (0.104, 0.052), (0.0, 0.108), (0.104, 0.108), (0.108, -0.052)]
)
def test_windy_optimum_is_the_best_on_a_lattice(wind):
    """Against dynamic programming over all paths of moves in multiples of 0.004 m, from which nothing better comes."""
    unit, family = 0.004, WindyPoint()
    drift, reach, goal = [round(w / unit) for w in wind], 25, 250
    best = {(0, 0): 0}
    for _ in range(family.horizon):
        after: dict[tuple[int, int], int] = {}
        for (x, y), value in best.items():
            low_x, low_y = x + drift[0] - reach, y + drift[1] - reach
            x_next = min(max(0, low_x), low_x + 2 * reach)  # nearest to the goal's column: no other x is better
            for y_next in range(low_y, low_y + 2 * reach + 1):
                pays = math.hypot(x_next, y_next - goal) <= 7.5
                place = (x_next, min(y_next, goal + 8)) if drift[1] > reach else (x_next, y_next)
                after[place] = max(after.get(place, -1), value + pays)
        best = after
    found = max(best.values())
    assert float(family.oracle(Wind(torch.tensor([wind])))) >= found
    assert float(family.oracle(Wind(torch.tensor([wind])))) <= found + 1  # the lattice is a little too coarse


# ---- agents --------------------------------------------------------------------------------------------------------


def test_navigation_oracle_serves_the_goals():
    family = SparsePointRobot()
    task = family.sample_tasks(rng.key(0), 200)
    curve = evaluate(Navigation2DOracle(), family, tasks=task)
    np.testing.assert_allclose(curve.returns[0], family.oracle(task)[:, None].expand(-1, 5), atol=1e-4)


def test_arc_search_knows_the_goal_after_three_episodes():
    family = SparsePointRobot()
    task = family.sample_tasks(rng.key(0), 500, "test")
    returns = torch.from_numpy(np.asarray(evaluate(ArcSearch(), family, tasks=task).returns[0]))
    best = family.oracle(task)
    assert returns[:, 0].mean() < 0.3 * best.mean()
    torch.testing.assert_close(returns[:, 3:], best[:, None].expand(-1, 2), rtol=0, atol=2e-3)


def test_arc_search_finds_the_semicircles_goal_in_one_episode():
    family = SemiCircle()
    returns = evaluate(ArcSearch(), family, tasks=500).returns[0]
    assert (returns > 0).mean() > 0.999
    assert 35 < returns[:, 0].mean() < 45 and 50 < returns[:, 1].mean() < 51.9
    with pytest.raises(ValueError, match="told the task"):
        evaluate(WindyPointOracle(), WindyPoint(), tasks=1) and WindyPointOracle().begin(1)


@each_family
def test_pictures(family):
    task = family.sample_tasks(rng.key(0), 1, "test")
    env = BatchEnv(family, task, rng.key(0), episodes=2)
    step, act = env.reset(), random_policy(family)
    states = [env.state]
    for t in range(30):
        step = env.step(act(step, t))[1]
        states.append(env.final_state)
    image = family.render(task, states)
    assert image.dtype == np.uint8 and image.shape == (480, 480, 3)
    assert not np.array_equal(image, family.render(task, states[:5]))
    assert family.render(task, []).shape == (480, 480, 3)
