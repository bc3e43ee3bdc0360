"""The task families of envs/: exact values from FAMILIES.md, splits, addressed rows, endings, pictures.

Every draw is addressed, so each Monte-Carlo test passes always or never; the intervals say how close it has to be.
"""

import inspect
import itertools
import re
from collections.abc import Callable
from typing import get_args, get_origin

import numpy as np
import pytest
import scipy.stats
import torch
from gymnasium.spaces import Discrete
from registered_families import ELSEWHERE, IDS
from torch import Tensor

from metarl.core import rng
from metarl.core.batch_env import BatchEnv, Outcome, Step
from metarl.core.family import TaskFamily
from metarl.core.registry import family_class, make, registered
from metarl.core.tree import num_rows, take, to_device
from metarl.envs import BernoulliBandit, DarkRoom, GridNavi, Navigation2D, TabularMDP
from metarl.envs.adapter.simulated import SimulatorFamily
from metarl.envs.bandits.bernoulli import BernoulliArms
from metarl.envs.bandits.pull import Pull
from metarl.envs.grids.dark_room import DarkTask
from metarl.envs.grids.grid_navi import GoalCell
from metarl.envs.mdp import Tables, log_gamma_variates
from metarl.envs.mujoco.robots import RobotFamily
from metarl.envs.mujoco.simulator import Physics
from metarl.envs.points.plane import Goal

FAMILIES: list[Callable[[], TaskFamily]] = [BernoulliBandit, TabularMDP, Navigation2D, GridNavi, DarkRoom]
SPLITS = [(family, split) for family in FAMILIES for split in family.splits]  # type: ignore[attr-defined]
each_family = pytest.mark.parametrize("family", [make() for make in FAMILIES], ids=lambda f: type(f).__name__)
each_split = pytest.mark.parametrize(("cls", "split"), SPLITS, ids=lambda x: x if isinstance(x, str) else x.__name__)
each_grid = pytest.mark.parametrize("grid", [GridNavi(), DarkRoom()], ids=lambda f: type(f).__name__)

Policy = Callable[[Step, int], Tensor]  # (what it sees, number of the step) → action


def play(family: TaskFamily, task, policy: Policy, episodes: int = 1, seed: int = 5) -> Tensor:
    """The return of each episode of each row: (B, episodes), summed in float64."""
    env = BatchEnv(family, task, rng.key(seed), episodes)
    step = env.reset()
    returns = torch.zeros(num_rows(task), episodes + 1, dtype=torch.float64)  # the last column: after the trial
    rows = torch.arange(num_rows(task))
    for t in range(env.max_steps):
        episode = env.episode
        outcome, step = env.step(policy(step, t))
        returns[rows, episode.clamp_max(episodes)] += outcome.reward
    return returns[:, :episodes]


def random_policy(family: TaskFamily, seed: int = 7) -> Policy:
    def act(step: Step, t: int) -> Tensor:
        keys = rng.fold(rng.fold(rng.key(seed), t), torch.arange(len(step.obs)))
        if isinstance(family.action_space, Discrete):
            return rng.integers(keys, 1, int(family.action_space.n))[:, 0]
        low, high = map(torch.from_numpy, (family.action_space.low, family.action_space.high))
        return low + (high - low) * rng.uniform(keys, len(low))

    return act


def assert_mean(sample: Tensor, mean: float, within: float) -> None:
    """The sample's mean is `mean` within four standard errors, and these are no wider than `within`."""
    standard_error = float(sample.double().std() / len(sample) ** 0.5)
    assert 4 * standard_error <= within, f"too few draws: ± {4 * standard_error}"
    assert abs(float(sample.double().mean()) - mean) <= 4 * standard_error


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# ---- what every family promises ------------------------------------------------------------------------------------


def test_ids():
    for cls in FAMILIES:
        assert f"metarl/{cls.__name__}-v0" in registered()
        assert type(make(f"metarl/{cls.__name__}-v0")) is cls


@pytest.mark.parametrize("id", [*IDS, *sorted(ELSEWHERE)])
def test_docstrings_follow_one_schema(id):
    cls = family_class(id)
    assert cls.__doc__ is not None
    headings = re.findall(r"^(\w[\w ]*):$", inspect.cleandoc(cls.__doc__), re.MULTILINE)
    differs = ["Differs from the source"] if "Differs from the source" in headings else []  # the one optional section
    assert headings == [
        "Description", "What varies", "Splits", "Actions", "Observations", "Rewards", "Endings", "Optimum", *differs,
        "Source", "Version history",
    ]  # fmt: skip


@pytest.mark.parametrize("id", IDS)
def test_tasks_and_states_have_the_types_that_the_class_declares(id):
    family = make(id)
    (base,) = type(family).__orig_bases__
    if get_origin(base) is SimulatorFamily:
        return  # the task of an adapted environment is made of its parameters' names
    declared = get_args(base) if get_origin(base) is TaskFamily else (*get_args(base), Physics)
    task = family.sample_tasks(rng.key(0), 2)
    state = family.reset(task, rng.fold(rng.key(1), torch.arange(2)))
    assert get_origin(base) in (TaskFamily, RobotFamily) and (type(task), type(state)) == declared


@pytest.mark.parametrize(
    ("cls", "wrong"),
    [
        (BernoulliBandit, {"num_arms": 1}),
        (BernoulliBandit, {"num_arms": 2.5}),
        (TabularMDP, {"num_states": 1}),
        (TabularMDP, {"num_actions": 0}),
        (TabularMDP, {"horizon": 0}),
        (Navigation2D, {"horizon": -1}),
        *[(cls, {"episodes_per_trial": 0}) for cls in FAMILIES],
    ],
)
def test_wrong_arguments_are_named(cls, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be a whole number of at least"):
        cls(**wrong)


@each_split
def test_task_i_depends_on_seed_split_and_i_alone(cls, split):
    family = cls()
    tasks = family.sample_tasks(rng.key(3), 23, split)
    assert num_rows(tasks) == 23
    assert same(take(tasks, slice(16, 23)), family.sample_tasks(rng.key(3), 7, split, first=16))
    for i in range(23):
        assert same(take(tasks, slice(i, i + 1)), family.sample_tasks(rng.key(3), 1, split, first=i))
    assert not same(tasks, family.sample_tasks(rng.key(4), 23, split))


@each_family
def test_unknown_split(family):
    with pytest.raises(ValueError, match="Did you mean 'train'"):
        family.sample_tasks(rng.key(0), 1, "trian")


@each_split
def test_row_of_a_batch_equals_a_batch_of_one(cls, split):
    family, size = cls(), 11
    tasks = family.sample_tasks(rng.key(1), size, split)
    policy = random_policy(family)
    actions = [policy(Step(torch.zeros(size, 1), *[torch.zeros(0)] * 3), t) for t in range(40)]

    def trace(task, rows: slice) -> list[tuple[Outcome, Step]]:
        env = BatchEnv(family, task, rng.key(2), episodes=40, first_row=rows.start)
        env.reset()
        return [env.step(action[rows]) for action in actions]

    whole = trace(tasks, slice(0, size))
    for i in range(size):
        rows = slice(i, i + 1)
        for (outcome, step), (one_outcome, one_step) in zip(whole, trace(take(tasks, rows), rows), strict=True):
            assert same(take(outcome, rows), one_outcome)
            assert same(take(step, rows), one_step)


@each_split
def test_shapes_types_spaces_and_states_left_alone(cls, split):
    family, n = cls(), 64
    task = family.sample_tasks(rng.key(0), n, split)
    keys = rng.fold(rng.key(1), torch.arange(n))
    state = family.reset(task, keys)
    policy = random_policy(family)
    for t in range(min(family.horizon, 30)):
        obs = family.observe(task, state)
        assert obs.dtype == torch.float32 and obs.shape == (n, *family.observation_space.shape)
        assert all(family.observation_space.contains(row) for row in obs.numpy())
        before = [field.clone() for field in state]
        next_state, reward, terminated = family.step(task, state, policy(Step(obs, *[obs] * 3), t), rng.fold(keys, t))
        assert same(state, before), "step modified its state"
        assert reward.dtype == torch.float32 and terminated.dtype == torch.bool
        assert reward.shape == terminated.shape == (n,)
        assert family.terminates or not terminated.any()
        state = next_state
    for value in (family.oracle(task), family.random_return(task)):
        if value is not None:
            assert value.dtype == torch.float32 and value.shape == (n,)


@each_split
def test_first_observation_does_not_tell_the_task(cls, split):
    family = cls()
    obs = BatchEnv(family, family.sample_tasks(rng.key(0), 200, split), rng.key(0)).reset().obs
    assert (obs == obs[:1]).all()


@pytest.mark.parametrize("cls", [Navigation2D, GridNavi, DarkRoom])
def test_goal_families_show_the_same_world_whatever_the_goal(cls):
    """A task-blind, memory-less policy cannot beat chance: observations depend on the actions alone."""
    family = cls()
    env = BatchEnv(family, family.sample_tasks(rng.key(0), 100, "test"), rng.key(0), episodes=1)
    step = env.reset()
    policy = random_policy(family)
    for t in range(family.horizon):
        outcome, step = env.step(policy(step, t)[:1].expand(100, *family.action_space.shape))
        seen = outcome.final_obs[env.episode == 0]  # rows that have not ended
        assert (seen == seen[:1]).all()


@each_family
def test_pictures(family):
    task = family.sample_tasks(rng.key(0), 1, "test")

    def picture(seed: int) -> np.ndarray:
        env = BatchEnv(family, task, rng.key(0))
        step = env.reset()
        states, policy = [env.state], random_policy(family, seed)
        for t in range(30):
            step = env.step(policy(step, t))[1]
            states.append(env.final_state)
        return family.render(task, states)

    image = picture(1)
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    assert min(image.shape[:2]) > 100 and max(image.shape[:2]) < 1500
    assert not np.array_equal(image, picture(2)), "the path is not in the picture"
    assert family.render(task, []).shape[2] == 3


@pytest.mark.gpu
@each_split
def test_the_gpu_has_the_same_tasks(cls, split):
    family = cls()
    here, there = (family.sample_tasks(rng.key(0, device), 100, split) for device in ("cpu", "cuda"))
    for a, b in zip(here, there, strict=True):
        torch.testing.assert_close(a, b.cpu())
    env = BatchEnv(family, to_device(here, "cuda"), rng.key(1, "cuda"))
    env.reset()
    outcome, _ = env.step(random_policy(family)(Step(*[torch.zeros(100, 1)] * 4), 0).cuda())
    assert all(field.is_cuda for field in outcome)


# ---- bandit --------------------------------------------------------------------------------------------------------


def test_bandit_splits():
    family = BernoulliBandit()
    for split, high in (("train", 1.0), ("test", 1.0), ("ood", 0.3)):
        probs = family.sample_tasks(rng.key(0), 20_000, split).probs.flatten()
        assert scipy.stats.kstest(probs.numpy(), "uniform", (0, high)).pvalue > 0.001
        assert probs.min() >= 0 and probs.max() < high
    train, test = (family.sample_tasks(rng.key(0), 2000, split).probs for split in ("train", "test"))
    assert not set(map(tuple, train.tolist())) & set(map(tuple, test.tolist()))
    poor = (family.sample_tasks(rng.key(0), 100_000).probs < 0.3).all(-1).float()
    assert_mean(poor, 0.3**5, within=0.001)


@pytest.mark.parametrize(("k", "n"), [(2, 10), (5, 100), (10, 50)])
def test_bandit_values(k, n):
    family = BernoulliBandit(num_arms=k, episodes_per_trial=n)
    task = family.sample_tasks(rng.key(0), 2000)
    assert_mean(family.oracle(task), k / (k + 1), within=0.03)
    best = play(family, task, lambda step, t: task.probs.argmax(-1), episodes=n).sum(1)
    assert_mean(best, n * k / (k + 1), within=0.03 * n)
    assert_mean(best - n * family.oracle(task), 0.0, within=0.03 * n)
    chance = play(family, task, random_policy(family), episodes=n).sum(1)
    assert_mean(chance, n / 2, within=0.03 * n)
    assert_mean(chance - n * family.random_return(task), 0.0, within=0.03 * n)


def test_bandit_thompson_sampling():
    """A learner through the whole loop: posterior sampling reaches FAMILIES' 14.287 ≥ 12.751 for 5 arms, 20 pulls."""
    family, n, rows = BernoulliBandit(), 20, 5000
    counts = torch.ones(rows, 5, 2)  # Beta(1, 1) prior: payments, blanks
    draw = np.random.default_rng(0)

    def policy(step: Step, t: int) -> Tensor:
        if t:
            assert (step.obs == 0).all() and (step.prev_done == 1).all()
            counts[torch.arange(rows), step.prev_action, (1 - step.prev_reward).long()] += 1
        return torch.from_numpy(draw.beta(counts[..., 0], counts[..., 1])).argmax(-1)

    assert_mean(play(family, family.sample_tasks(rng.key(0), rows), policy, episodes=n).sum(1), 12.751, within=0.25)


def test_bandit_remembers_the_pull():
    family = BernoulliBandit()
    task = BernoulliArms(torch.tensor([[0.0, 0, 0, 1, 0]]).repeat(2, 1))
    state = family.reset(task, torch.zeros(2, dtype=torch.int64))
    assert state.arm.tolist() == [-1, -1]
    state, reward, _ = family.step(task, state, torch.tensor([3, 2]), rng.fold(rng.key(0), torch.arange(2)))
    assert reward.tolist() == [1, 0] and same(state, Pull(torch.tensor([3, 2]), reward))


# ---- tabular MDP ---------------------------------------------------------------------------------------------------

# The mean of the known-task optimum is a Monte-Carlo number: 21.830 ± 0.003 over 400 000 of our tasks (21.828) and
# 200 000 of NumPy's (21.835).
MDP_OPTIMUM = 21.830


def test_mdp_values():
    family = TabularMDP()
    task = family.sample_tasks(rng.key(0), 8000)
    assert_mean(family.oracle(task), MDP_OPTIMUM, within=0.12)
    assert_mean(family.random_return(task), 10.0, within=0.12)
    chance = play(family, task, random_policy(family))[:, 0]
    assert_mean(chance, 10.0, within=0.25)
    assert_mean(chance - family.random_return(task), 0.0, within=0.25)


@pytest.mark.parametrize("split", ["train", "ood"])
def test_mdp_oracle_is_what_the_optimal_policy_earns(split):
    family = TabularMDP()
    task = family.sample_tasks(rng.key(0), 1000, split)
    mean, transition = task.reward_mean.double().numpy(), task.transition.double().numpy()
    value, policies = np.zeros((1000, 10)), []
    for _ in range(family.horizon):  # its own dynamic programming, in NumPy
        action_values = mean + np.einsum("bsat,bt->bsa", transition, value)
        policies.insert(0, torch.from_numpy(action_values.argmax(-1)))
        value = action_values.max(-1)
    np.testing.assert_allclose(family.oracle(task), value[:, 0], rtol=1e-5)
    earned = play(family, task, lambda step, t: policies[t].gather(1, step.obs.argmax(-1)[:, None])[:, 0])[:, 0]
    assert_mean(earned - family.oracle(task), 0.0, within=0.6)


def test_mdp_step_follows_the_tables():
    family, n = TabularMDP(), 50_000
    one = family.sample_tasks(rng.key(0), 1)
    task = Tables(one.transition.expand(n, -1, -1, -1), one.reward_mean.expand(n, -1, -1))
    state = family.reset(task, torch.zeros(n, dtype=torch.int64))._replace(current=torch.full((n,), 7))
    keys = rng.fold(rng.key(1), torch.arange(n))
    after, reward, _ = family.step(task, state, torch.full((n,), 2), keys)
    expected = one.transition[0, 7, 2].double()
    observed = after.current.bincount(minlength=10).numpy()
    assert scipy.stats.chisquare(observed, (n * expected / expected.sum()).numpy()).pvalue > 0.001
    assert scipy.stats.kstest(reward.numpy(), "norm", (float(one.reward_mean[0, 7, 2]), 1)).pvalue > 0.001
    spread = (reward - one.reward_mean[0, 7, 2]).abs().numpy()  # what a draw shared with the move would tell
    assert abs(np.corrcoef(after.current.numpy(), spread)[0, 1]) < 0.02


@pytest.mark.parametrize(("split", "concentration"), [("train", 1.0), ("ood", 0.05)])
def test_mdp_tables_are_dirichlet(split, concentration):
    task = TabularMDP().sample_tasks(rng.key(0), 500, split)
    rows = task.transition.reshape(-1, 10)
    assert (rows >= 0).all()
    torch.testing.assert_close(rows.sum(-1), torch.ones(len(rows)))
    variance = 0.1 * 0.9 / (10 * concentration + 1)
    for i in range(10):
        assert_mean(rows[:, i], 0.1, within=0.01)
        assert_mean((rows[:, i] - 0.1) ** 2, variance, within=0.1 * variance)
    assert_mean(rows[:, 0] * rows[:, 1], 0.01 - variance / 9, within=0.001)
    assert scipy.stats.kstest(task.reward_mean.flatten().numpy(), "norm", (1, 1)).pvalue > 0.001


@pytest.mark.parametrize("concentration", [0.05, 0.7])
def test_log_gamma_variates(concentration):
    sample = log_gamma_variates(rng.fold(rng.key(0), torch.arange(50)), 400, concentration)
    assert sample.isfinite().all()
    assert scipy.stats.kstest(sample.flatten().numpy(), "loggamma", (concentration,)).pvalue > 0.001


def test_mdp_ood_is_a_stated_shift():
    def sharpness(split: str) -> Tensor:
        return TabularMDP().sample_tasks(rng.key(0), 500, split).transition.amax(-1).mean((1, 2))

    assert sharpness("train").max() < 0.4 and sharpness("test").max() < 0.4
    assert sharpness("ood").min() > 0.6
    assert_mean(sharpness("train"), sum(1 / i for i in range(1, 11)) / 10, within=0.005)  # of uniform spacings


# ---- navigation ----------------------------------------------------------------------------------------------------


def test_navigation_values():
    family = Navigation2D()
    task = family.sample_tasks(rng.key(0), 100_000)
    assert_mean(family.oracle(task), -0.506, within=0.005)
    still = play(family, take(task, slice(0, 10_000)), lambda step, t: torch.zeros(len(step.obs), 2))[:, 0]
    assert_mean(still, -38.26, within=0.6)


@pytest.mark.parametrize("split", ["train", "ood"])
@pytest.mark.parametrize("horizon", [3, 100])
def test_navigation_oracle_is_what_the_script_earns(split, horizon):
    family = Navigation2D(horizon=horizon)
    task = family.sample_tasks(rng.key(0), 2000, split)
    earned = play(family, task, lambda step, t: task.position - step.obs)[:, 0]  # clipped by the family
    torch.testing.assert_close(earned.float(), family.oracle(task), rtol=0, atol=1e-5)


def test_navigation_oracle_is_the_best_on_a_lattice():
    """Against dynamic programming over all paths of a lattice with steps of 0, ± 0.05, ± 0.1 on each axis."""
    family, goal = Navigation2D(), torch.tensor([[0.25, -0.1]])
    side = 15  # lattice points per axis, 0.05 apart, the start in the middle
    axis = 0.05 * (np.arange(side) - side // 2)
    distance = np.hypot(axis[:, None] - 0.25, axis[None, :] + 0.1)
    value = np.zeros((side, side))
    for _ in range(10):
        arrive = np.pad(np.where(distance < 1e-6, 0.0, value - distance), 2, constant_values=-np.inf)
        value = np.max([arrive[i : i + side, j : j + side] for i, j in itertools.product(range(5), repeat=2)], axis=0)
    assert float(family.oracle(Goal(goal))) == pytest.approx(value[side // 2, side // 2], abs=1e-5)


def test_navigation_splits():
    family = Navigation2D()
    train, test, ood = (family.sample_tasks(rng.key(0), 20_000, split).position for split in ("train", "test", "ood"))
    for goals in (train, test):
        assert scipy.stats.kstest(goals.flatten().numpy(), "uniform", (-0.5, 1)).pvalue > 0.001
        assert goals.min() >= -0.5 and goals.max() < 0.5
    assert not set(map(tuple, train.tolist())) & set(map(tuple, test.tolist()))
    radius = ood.abs().amax(-1)
    assert radius.min() >= 0.5 and radius.max() <= np.float32(0.8)
    area = (radius.double() ** 2 - 0.25) / (0.64 - 0.25)  # uniform over the ring: area within the radius is uniform
    assert scipy.stats.kstest(area.numpy(), "uniform").pvalue > 0.001
    sides = [(ood[:, i] * sign == radius).double() for i in (0, 1) for sign in (1, -1)]
    assert all(abs(float(side.mean()) - 0.25) < 0.015 for side in sides)


def test_navigation_step():
    family, zero = Navigation2D(), torch.zeros(1, dtype=torch.int64)
    state = family.reset(Goal(torch.tensor([[0.3, -0.4]])), zero)
    state, reward, _ = family.step(Goal(torch.tensor([[0.3, -0.4]])), state, torch.tensor([[5.0, -0.04]]), zero)
    torch.testing.assert_close(state.position, torch.tensor([[0.1, -0.04]]))
    assert float(reward) == pytest.approx(-np.hypot(0.2, 0.36), abs=1e-6)


def test_navigation_episodes_of_different_length_in_one_batch():
    family = Navigation2D(horizon=5)
    task = Goal(torch.tensor([[0.1, 0.0], [0.25, 0.1], [0.5, 0.5], [0.1, 0.009]]))
    env = BatchEnv(family, task, rng.key(0), episodes=2)
    step, log = env.reset(), []
    while not env.all_done():
        before, alive = step, env.alive
        outcome, step = env.step(torch.tensor([[0.1, 0.0], [0.1, 0.1], [0.01, 0.0], [0.1, 0.0]]))
        ended = outcome.terminated | outcome.truncated
        torch.testing.assert_close(step.prev_done, ended.float())
        torch.testing.assert_close(step.prev_reward, outcome.reward)
        assert (step.obs[ended] == 0).all(), "the next episode starts at the origin"
        assert (outcome.final_obs[:, 0] > before.obs[:, 0]).all(), "the last observation of an episode is kept"
        log.append((alive, outcome.terminated, outcome.truncated))
        if len(log) == 1:
            assert outcome.terminated.tolist() == [True, False, False, True]
            assert (-outcome.reward).tolist() == pytest.approx([0.0, 0.15, np.hypot(0.49, 0.5), 0.009], abs=1e-6)
    alive, terminated, truncated = (torch.stack(column) for column in zip(*log, strict=True))
    assert not (terminated & truncated).any()
    # The second row rises past its goal and is truncated; the first and the last arrive in one step, twice.
    assert alive.sum(0).tolist() == [2, 10, 10, 2]
    assert (terminated & alive).sum(0).tolist() == [2, 0, 0, 2]
    assert (truncated & alive).sum(0).tolist() == [0, 2, 2, 0]


# ---- grids ---------------------------------------------------------------------------------------------------------


def goals(task) -> set[tuple[int, ...]]:
    return set(map(tuple, task.goal.tolist()))


def test_grid_partitions():
    navi = {split: goals(GridNavi().tasks_of(split)) for split in GridNavi.splits}
    assert navi["ood"] == {(0, 1), (1, 0), (1, 1)}
    assert navi["all"] == set(itertools.product(range(5), repeat=2)) - navi["ood"] - {(0, 0)}
    assert navi["test"] == set(GridNavi.TEST_GOALS) and len(navi["test"]) == 6
    assert navi["train"] == navi["all"] - navi["test"]
    room = {split: goals(DarkRoom().tasks_of(split)) for split in DarkRoom.splits}
    assert room["all"] == set(itertools.product(range(9), repeat=2))
    assert room["test"] == set(DarkRoom.TEST_GOALS) and len(room["test"]) == 16
    assert room["train"] == room["all"] - room["test"] == room["ood"]


def test_dark_room_permutes_actions_in_ood_alone():
    family = DarkRoom()
    for split in ("train", "test", "all"):
        assert (family.sample_tasks(rng.key(0), 500, split).actions == torch.arange(5)).all()
    actions = family.sample_tasks(rng.key(0), 2000, "ood").actions
    assert (actions.sort(-1).values == torch.arange(5)).all() and (actions != torch.arange(5)).all()
    assert len(set(map(tuple, actions.tolist()))) == 44
    task = DarkTask(torch.tensor([[8, 8]]), torch.tensor([[1, 2, 3, 4, 0]]))
    state = family.reset(task, torch.zeros(1, dtype=torch.int64))
    after = [family.step(task, state, torch.tensor([a]), torch.zeros(1))[0].position[0].tolist() for a in range(5)]
    assert after == [[4, 5], [5, 4], [4, 3], [3, 4], [4, 4]]


@each_grid
def test_grid_draws_are_uniform_over_the_split(grid):
    for split in grid.splits:
        every, n = grid.tasks_of(split), 20_000
        names = {tuple(map(tuple, task)): i for i, task in enumerate(zip(*(f.tolist() for f in every), strict=True))}
        assert len(names) == num_rows(every), "a task is enumerated twice"
        drawn = grid.sample_tasks(rng.key(0), n, split)
        index = [names[tuple(map(tuple, task))] for task in zip(*(f.tolist() for f in drawn), strict=True)]
        assert scipy.stats.chisquare(np.bincount(index, minlength=len(names))).pvalue > 0.001


@pytest.mark.parametrize(("cls", "best", "chance"), [(GridNavi, 11.0714, -1.1655), (DarkRoom, 16.5432, 0.2469)])
def test_grid_exact_values(cls, best, chance):
    family = cls()
    task = family.enumerate_tasks("all")
    assert float(family.oracle(task).mean()) == pytest.approx(best, abs=5e-5)
    assert float(family.random_return(task).mean()) == pytest.approx(chance, abs=5e-5)


@pytest.mark.parametrize(("cls", "split"), [s for s in SPLITS if s[0] in (GridNavi, DarkRoom)])
def test_grid_returns_are_what_policies_earn(cls, split):
    family = cls()
    task = family.sample_tasks(rng.key(0), 2000, split)

    def shortest_path(step: Step, t: int) -> Tensor:
        move = move_towards(task.goal, position_of(step))
        return (task.actions == move[:, None]).int().argmax(-1) if isinstance(task, DarkTask) else move

    best = play(family, task, shortest_path)[:, 0]
    torch.testing.assert_close(best.float(), family.oracle(task))
    chance = play(family, task, random_policy(family))[:, 0]
    assert_mean(chance - family.random_return(task), 0.0, within=0.3)


@each_grid
def test_grid_random_return_of_single_goals(grid):
    """Over all goals of the room the mean is 20 / 81 from whatever start, so the goals are looked at one by one."""
    every = take(grid.enumerate_tasks("all"), slice(0, None, 4))
    exact = grid.random_return(every)
    for i in [int(exact.argmax()), int(exact.argmin()), num_rows(every) // 3]:
        task = take(every, torch.full((2000,), i))
        assert_mean(play(grid, task, random_policy(grid))[:, 0], float(exact[i]), within=0.4)


def position_of(step: Step) -> Tensor:
    """(B, 2): where the agent is on a grid, read from its observation alone."""
    return step.obs.long()


def move_towards(target: Tensor, position: Tensor) -> Tensor:
    """The action of a shortest path, x first."""
    dx, dy = (target - position).unbind(-1)
    along_y = torch.where(dy > 0, 1, torch.where(dy < 0, 3, 0))
    return torch.where(dx > 0, 2, torch.where(dx < 0, 4, along_y))


class Sweep:
    """Search along fixed paths, one per episode; from the first reward of 1 on, go to that cell and stay there."""

    def __init__(self, family: TaskFamily, paths: list[list[int]]) -> None:
        self.family, self.paths = family, paths

    def __call__(self, step: Step, t: int) -> Tensor:
        position = position_of(step)
        if t == 0:
            self.known = torch.full_like(position, -1)
        # At an episode's end the observation is already the next start, so look for the reward before that.
        found = (step.prev_reward == 1) & (step.prev_done == 0)
        self.known = torch.where(found[:, None], position, self.known)
        episode, t = divmod(t, self.family.horizon)
        search = torch.full_like(position[:, 0], self.paths[min(episode, len(self.paths) - 1)][t])
        return torch.where(self.known[:, 0] >= 0, move_towards(self.known, position), search)


STAY, UP, RIGHT, DOWN, LEFT = range(5)


def test_grid_navi_bayes_optimal_sweep():
    """4.000, then 11.0714 three times: a path over 14 goals, then a shortest path to each of the other 7.

    The 14th goal, (4,3), is reached by the last step of the first episode, whose cell the agent does not see any more:
    the second path therefore ends there too when the other goals have not paid.
    """
    family = GridNavi()
    first = [RIGHT] * 4 + [UP] + [LEFT] * 2 + [UP, LEFT, UP] + [RIGHT] * 2 + [DOWN, RIGHT, UP]
    second = [UP] * 4 + [RIGHT] * 4 + [STAY] * 7
    task = family.enumerate_tasks("all")
    sweep = Sweep(family, [first, second])

    def policy(step: Step, t: int) -> Tensor:
        action = sweep(step, t)
        if t and t % family.horizon == 0:  # paid by the last step of an episode: it was on the path's last cell
            paid = (step.prev_reward == 1) & (sweep.known[:, 0] < 0)
            sweep.known[paid] = torch.tensor([4, 3])
            action[paid] = move_towards(sweep.known, position_of(step))[paid]
        return action

    returns = play(family, task, policy, episodes=4)
    assert returns.mean(0).tolist() == pytest.approx([4.0, 11.0714, 11.0714, 11.0714], abs=5e-5)
    assert float(returns.sum(1).mean()) == pytest.approx(37.214, abs=5e-4)


def test_dark_room_bayes_optimal_first_episode():
    """2.593: a spiral that enters a new cell on each of the 20 steps, 210 / 81."""
    spiral = [RIGHT, UP, LEFT, LEFT, DOWN, DOWN, *[RIGHT] * 3, *[UP] * 3, *[LEFT] * 4, *[DOWN] * 4]
    returns = play(DarkRoom(), DarkRoom().enumerate_tasks("all"), Sweep(DarkRoom(), [spiral]), episodes=1)
    assert float(returns.mean()) == pytest.approx(2.593, abs=5e-4)


def test_grid_navi_moves_and_walls():
    family, zero = GridNavi(), torch.zeros(1, dtype=torch.int64)
    task = GoalCell(torch.tensor([[2, 0]]))
    state, visited = family.reset(task, zero), []
    for action in (LEFT, DOWN, UP, RIGHT, RIGHT, DOWN, *[RIGHT] * 3, *[UP] * 5, STAY):
        state, reward, _ = family.step(task, state, torch.tensor([action]), zero)
        visited.append((*state.position[0].tolist(), round(float(reward), 6)))
    assert visited[:6] == [
        (0, 0, -0.1), (0, 0, -0.1), (0, 1, -0.1), (1, 1, -0.1), (2, 1, -0.1), (2, 0, 1.0),
    ]  # fmt: skip
    assert visited[8] == (4, 0, -0.1) and visited[-1] == (4, 4, -0.1)
