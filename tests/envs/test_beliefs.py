"""Exact beliefs about the task, next to references of another kind: quadrature, sampling, and playing every task."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

import metarl
from metarl.core import rng
from metarl.core.batch_env import BatchEnv, Step
from metarl.core.beliefs.belief import Belief
from metarl.core.family import TaskFamily
from metarl.core.tree import num_rows, take
from metarl.envs.bandits.arms import BernoulliArms, GaussianArms
from metarl.envs.bandits.beliefs import BetaArms, Counts, ListedArms, NormalArms, Sums
from metarl.envs.bandits.walk_beliefs import WanderingArms
from metarl.envs.mdp_beliefs import DirichletTables
from metarl.envs.points.beliefs import GoalOnArc
from metarl.envs.points.goal_beliefs import GoalByDistance
from metarl.testing.beliefs import check_beliefs, inferred
from metarl.testing.contract import random_action

KNOWN = [
    ("GridNavi", {}), ("GridNavi", {"train_tasks": 7}), ("DarkRoom", {}), ("DarkRoomHard", {}), ("DarkKeyToDoor", {}),
    ("TMaze", {}), ("TMaze", {"active": True}), ("InformativeBandit", {}), ("BernoulliBandit", {}),
    ("BernoulliBandit", {"train_tasks": 5}), ("DependentBandit", {}), ("DependentBandit", {"structure": "hard"}),
    ("GaussianBandit", {}), ("GaussianBandit", {"std": 0.1, "train_tasks": 5}), ("TabularMDP", {}),
    ("TabularMDP", {"train_tasks": 5}), ("TwoStep", {}), ("TwoStep", {"train_tasks": 5, "episodes_per_trial": 2}),
    ("RestlessBandit", {}), ("SparsePointRobot", {}), ("SparsePointRobot", {"dense": True, "train_tasks": 50}),
    ("SparsePointRobot", {"dense": True}), ("SemiCircle", {}), ("SemiCircle", {"train_tasks": 50}), ("WindyPoint", {}),
    ("WindyPoint", {"train_tasks": 5, "episodes_per_trial": 2}), ("Navigation2D", {}), ("PointRobot", {}),
    ("Navigation2D", {"train_tasks": 9}), ("PointRobot", {"train_tasks": 9}), ("RoomNavi", {"episodes_per_trial": 2}),
    ("MetaMaze", {}), ("Harlow", {}), ("Harlow", {"num_features": 1}),
]  # fmt: skip


def play(family: TaskFamily, task: Any, seed: int = 0, steps: int | None = None) -> list[Step]:
    """What an agent that acts at random sees in a trial."""
    env = BatchEnv(family, task, rng.key(seed))
    keys = rng.fold(rng.key(seed + 1), torch.arange(num_rows(task)))
    seen = [env.reset()]
    for t in range(env.max_steps if steps is None else steps):
        seen.append(env.step(random_action(family.action_space, rng.fold(keys, t)))[1])
    return seen


def last(belief: Belief, history: list[Step]) -> Any:
    return inferred(belief, history)[-1]


def belief_of(family: TaskFamily, split: str = "train") -> Belief:
    belief = family.belief(split)
    assert belief is not None
    return belief


@pytest.mark.parametrize(("name", "options"), KNOWN)
def test_the_contract_of_beliefs(name: str, options: dict):
    check_beliefs(metarl.make(f"metarl/{name}-v0", **options))


@pytest.mark.parametrize("name", ["Alchemy", "CartPole"])
def test_what_is_not_computable_has_none(name: str):
    family = metarl.make(f"metarl/{name}-v0")
    assert family.belief("train") is None
    with pytest.raises(ValueError, match="split"):
        family.belief("no such split")


def test_what_would_not_be_exact_has_none():
    assert metarl.make("metarl/TwoStep-v0", episodes_per_trial=2).belief("train") is None
    assert metarl.make("metarl/RestlessBandit-v0", episodes_per_trial=2).belief("train") is None
    assert metarl.make("metarl/DarkKeyToDoor-v0").belief("ood") is None
    assert metarl.make("metarl/MetaMaze-v0").belief("ood") is None
    assert metarl.make("metarl/Harlow-v0", train_tasks=3).belief("train") is None


def test_gridnavi_rules_out_the_cells_that_it_has_visited():
    family = metarl.make("metarl/GridNavi-v0")
    belief, every = belief_of(family, "all"), family.tasks_of("all")
    history = play(family, every, seed=3, steps=15)
    state = last(belief, history)
    for goal, probs in zip(every.goal.tolist(), belief.probs(state), strict=True):  # type: ignore[attr-defined]
        row = every.goal.tolist().index(goal)
        # The last action of the episode led somewhere that its observation, of the next episode, does not show.
        visited = {tuple(step.obs[row].tolist()) for step in history[:-1]}
        if tuple(goal) in visited:
            assert probs[row] == 1.0
        else:
            free = [n for n, other in enumerate(every.goal.tolist()) if tuple(other) not in visited]
            assert 0 <= len(free) - int((probs > 0).sum()) <= 1 and probs[free].sum() == pytest.approx(1.0)


def test_a_task_outside_the_split_leaves_the_belief_finite():
    family = metarl.make("metarl/GridNavi-v0")
    belief = belief_of(family, "train")
    task = family.sample_tasks(rng.key(0), 50, "ood")
    for state in inferred(belief, play(family, task)):
        assert torch.allclose(belief.probs(state).sum(-1), torch.ones(50))  # type: ignore[attr-defined]
        assert bool(belief.features(state).isfinite().all()) and bool(
            (belief.log_prob(state, task) == -torch.inf).all()
        )


def test_the_key_in_the_hand_is_a_part_of_the_features():
    family = metarl.make("metarl/DarkKeyToDoor-v0", train_tasks=200)
    belief, task = belief_of(family), family.sample_tasks(rng.key(0), 100)
    history = play(family, task, steps=40)
    states = inferred(belief, history)[1:]
    holding = torch.zeros(100)
    for step, state in zip(history, states, strict=True):
        holding = torch.where(step.prev_done > 0.5, 0.0, torch.maximum(holding, step.prev_reward))
        torch.testing.assert_close(belief.features(state)[:, -1], holding)
    assert float(holding.sum()) > 0


@pytest.mark.parametrize("most", [1.0, 0.3])
def test_beta_arms_by_quadrature(most: float):
    belief = BetaArms(2, pulls=100, most=most)
    state = Counts(torch.tensor([[0.0, 7.0], [20.0, 1.0]]), torch.tensor([[0.0, 13.0], [80.0, 0.0]]))
    mean, std = belief.moments(state)
    for row, arm in itertools.product(range(2), range(2)):
        posterior = scipy.stats.beta(float(state.wins[row, arm]) + 1, float(state.losses[row, arm]) + 1)
        x = (np.arange(200_000) + 0.5) * most / 200_000
        weight = posterior.pdf(x) / posterior.pdf(x).sum()
        expected = (weight * x).sum()
        assert float(mean[row, arm]) == pytest.approx(expected, rel=1e-6)
        assert float(std[row, arm]) == pytest.approx(math.sqrt((weight * (x - expected) ** 2).sum()), rel=1e-5)
    probs = torch.tensor([[0.2, 0.29], [0.21, 0.1]])
    density = [
        sum(
            scipy.stats.beta.logpdf(p, w + 1, n + 1) - scipy.stats.beta.logcdf(most, w + 1, n + 1)
            for p, w, n in zip(*rows, strict=True)
        )
        for rows in zip(probs.tolist(), state.wins.tolist(), state.losses.tolist(), strict=True)
    ]
    np.testing.assert_allclose(belief.log_prob(state, BernoulliArms(probs)).numpy(), density, rtol=1e-5, atol=1e-5)
    assert float(belief.log_prob(belief.prior(1), BernoulliArms(torch.full((1, 2), 1.5)))) == -math.inf


@pytest.mark.parametrize(("std", "low"), [(1.0, 0.0), (0.3, 1.0), (0.02, 0.0)])
def test_gaussian_arms_are_cut_off_normals(std: float, low: float):
    belief = NormalArms(3, std, low)
    pulls, total = (
        [[1.0, 30.0, 0.0], [2.0, 1.0, 90.0]],
        [[low - 4 * std, 12.0 + 30 * low, 0.0], [2 * low + 1, 0.5, 45.0]],
    )
    state = Sums(torch.tensor(pulls), torch.tensor(total, dtype=torch.float64))
    mean, spread = belief.moments(state)
    means = torch.tensor([[0.3, 0.41, 0.9], [0.5, 0.6, 0.5]]) + low
    density = belief.log_prob(state, GaussianArms(means))
    for row in range(2):
        expected = 0.0
        for arm in range(3):
            n, sum_ = pulls[row][arm], total[row][arm]
            if n == 0:
                assert (float(mean[row, arm]), float(spread[row, arm])) == pytest.approx((low + 0.5, 12**-0.5))
                continue
            centre, error = sum_ / n, std / math.sqrt(n)
            cut = scipy.stats.truncnorm((low - centre) / error, (low + 1 - centre) / error, centre, error)
            assert float(mean[row, arm]) == pytest.approx(cut.mean(), abs=1e-7)
            assert float(spread[row, arm]) == pytest.approx(cut.std(), rel=2e-3, abs=1e-7)
            expected += cut.logpdf(float(means[row, arm]))
        assert float(density[row]) == pytest.approx(expected, rel=1e-4)


def test_a_long_list_of_arms_is_nearly_the_distribution():
    """The belief by enumeration of many drawn tasks, next to the conjugate one: two codes for one thing."""
    family = metarl.make("metarl/BernoulliBandit-v0", num_arms=2)
    many = ListedArms(family.sample_tasks(rng.key(5), 20_000))
    exact = belief_of(family)
    history = play(family, family.sample_tasks(rng.key(0), 6), steps=20)
    probs = many.probs(last(many, history))
    sampled = probs @ many.tasks.probs
    error = ((probs[..., None] * (many.tasks.probs - sampled[:, None])) ** 2).sum(1).sqrt()  # of importance sampling
    mean, _ = exact.moments(last(exact, history))  # type: ignore[attr-defined]
    assert bool(((sampled - mean).abs() < 5 * error).all())


def test_mirrored_arms_learn_from_either():
    family = metarl.make("metarl/DependentBandit-v0")
    belief, task = belief_of(family), family.sample_tasks(rng.key(0), 9)
    history = play(family, task, steps=30)
    state = last(belief, history)
    wins = sum(((step.prev_action == 0) == (step.prev_reward > 0.5)) & (step.prev_action >= 0) for step in history)
    density = scipy.stats.beta.logpdf(task.probs[:, 0].numpy(), wins.numpy() + 1, 31 - wins.numpy())  # type: ignore[union-attr]
    np.testing.assert_allclose(belief.log_prob(state, task).numpy(), density, rtol=1e-4, atol=1e-4)
    assert bool((belief.log_prob(state, BernoulliArms(torch.full((9, 2), 0.4))) == -torch.inf).all())


@pytest.mark.parametrize("split", ["train", "ood"])
def test_tables_count_what_was_seen(split: str):
    family = metarl.make("metarl/TabularMDP-v0", num_states=3, num_actions=2, horizon=5, episodes_per_trial=4)
    belief, task = belief_of(family, split), family.sample_tasks(rng.key(0), 4, split)
    history = play(family, task)
    state = last(belief, history)
    concentration = 0.05 if split == "ood" else 1.0
    for row in range(4):
        expected, moves = 0.0, {pair: [0, 0, 0] for pair in itertools.product(range(3), range(2))}
        rewards: dict[tuple[int, int], list[float]] = {pair: [] for pair in moves}
        for before, after in itertools.pairwise(history):
            pair = (int(before.obs[row].argmax()), int(after.prev_action[row]))
            rewards[pair].append(float(after.prev_reward[row]))
            if after.prev_done[row] < 0.5:
                moves[pair][int(after.obs[row].argmax())] += 1
        for (s, a), counts in moves.items():
            chance = task.transition[row, s, a].double().clamp_min(1e-40)
            chance = (chance / chance.sum()).numpy()
            expected += scipy.stats.dirichlet.logpdf(chance, np.add(counts, concentration))
            n, total = len(rewards[s, a]), sum(rewards[s, a])
            posterior = scipy.stats.norm((1 + total) / (1 + n), (1 + n) ** -0.5)
            expected += posterior.logpdf(float(task.reward_mean[row, s, a]))
        assert float(belief.log_prob(state, task)[row]) == pytest.approx(expected, rel=1e-3, abs=1e-2)


def worth(transition: Tensor, reward: Tensor, s: int, a: int, left: int) -> float:
    """Return Q(s, a) with `left` actions to go, by recursion over tables ``(S, A, S)`` and ``(S, A)``."""
    if left == 1:
        return float(reward[s, a])
    later = [max(worth(transition, reward, after, b, left - 1) for b in range(2)) for after in range(3)]
    return float(reward[s, a]) + sum(float(p) * value for p, value in zip(transition[s, a], later, strict=True))


def test_the_plan_on_mean_tables_by_recursion():
    """Q(s, a) for the steps that are left of the episode, row by row, in the middle and at the end of episodes."""
    family = metarl.make("metarl/TabularMDP-v0", num_states=3, num_actions=2, horizon=4, episodes_per_trial=2)
    belief, task = belief_of(family), family.sample_tasks(rng.key(0), 3)
    assert isinstance(belief, DirichletTables)
    for number, state in enumerate(inferred(belief, play(family, task))[1:]):
        for row, (transition, reward) in enumerate(zip(*belief.mean_tables(state), strict=True)):
            here = int(state.current[row].argmax())
            values = torch.tensor([worth(transition, reward, here, a, 4 - number % 4) for a in range(2)])
            torch.testing.assert_close(belief.plan(state)[row], values - values.mean(), rtol=1e-4, atol=1e-4)


def test_the_two_step_filter_by_all_paths():
    """Five rounds have 32 paths: their prior and their likelihood by hand."""
    family = metarl.make("metarl/TwoStep-v0", rounds=5)
    belief, task = belief_of(family), family.sample_tasks(rng.key(0), 20)
    history = play(family, task, steps=9)
    state = last(belief, history)
    for row in range(20):
        joint = np.zeros(32)
        for number, path in enumerate(itertools.product((1, 2), repeat=5)):
            switches = sum(a != b for a, b in itertools.pairwise(path))
            joint[number] = 0.5 * 0.025**switches * 0.975 ** (4 - switches)
            for round in range(4):
                second, paid = (
                    int(history[2 * round + 1].obs[row].argmax()),
                    float(history[2 * round + 2].prev_reward[row]),
                )
                pays = 0.9 if second == path[round] else 0.1
                joint[number] *= pays if paid else 1.0 - pays
        joint /= joint.sum()
        is_first = [path[4] == 1 for path in itertools.product((1, 2), repeat=5)]
        assert float(state.better[row, 0]) == pytest.approx(joint[is_first].sum(), abs=1e-9)


def test_the_density_of_luck_by_a_list_of_tasks():
    """The ratio of two tasks' densities is that of their masses where they are all the tasks there are."""
    listed = metarl.make("metarl/TwoStep-v0", rounds=20, train_tasks=2)
    pair, free = listed.tasks_of("train"), metarl.make("metarl/TwoStep-v0", rounds=20)
    task = take(pair, torch.tensor([0, 1, 0, 1]))
    history = play(free, task)
    masses, densities = belief_of(listed), belief_of(free)
    probs = masses.probs(last(masses, history))  # type: ignore[attr-defined]
    one, other = (densities.log_prob(last(densities, history), take(pair, torch.full((4,), n))) for n in (0, 1))
    torch.testing.assert_close((one - other).sigmoid(), probs[:, 0], rtol=1e-4, atol=1e-5)


def test_the_two_step_belief_does_not_depend_on_the_actions_in_second_states():
    family = metarl.make("metarl/TwoStep-v0", rounds=10)
    belief = belief_of(family)
    history = play(family, family.sample_tasks(rng.key(0), 8))
    other = [
        step._replace(prev_action=1 - step.prev_action) if n % 2 == 0 and n else step for n, step in enumerate(history)
    ]
    assert torch.equal(belief.features(last(belief, history)), belief.features(last(belief, other)))


def walks(step_size: float) -> tuple[TaskFamily, Any, list[Step]]:
    family = metarl.make("metarl/RestlessBandit-v0", step_size=step_size)
    task = family.sample_tasks(rng.key(0), 30)
    return family, task, play(family, task, steps=99)


@pytest.mark.parametrize(("step_size", "of_mean", "of_evidence"), [(0.1, 1.3e-4, 3.5e-3), (0.3, 2e-5, 7e-4)])
def test_the_error_of_the_grid_of_wandering_arms(step_size: float, of_mean: float, of_evidence: float):
    """What the docstring says, next to a grid that is eight times as fine."""
    _, _, history = walks(step_size)
    coarse, fine = WanderingArms(step_size, 100), WanderingArms(step_size, 100, cells=800)
    first, second = last(coarse, history), last(fine, history)
    for a, b in zip(coarse.moments(first), fine.moments(second), strict=True):
        assert float((a - b).abs().max()) < of_mean
    assert float((first.log_evidence - second.log_evidence).abs().max()) < of_evidence


def test_wandering_arms_by_many_walks():
    """Importance sampling: 40,000 walks weighted by the likelihood of ten payments."""
    family, _, history = walks(0.1)
    belief = belief_of(family)
    state = last(belief, history[:11])
    many = family.sample_tasks(rng.key(9), 40_000).probs[:, :, :11]
    for row in range(4):
        weight = torch.ones(len(many))
        for t, step in enumerate(history[1:11]):
            p = many[:, step.prev_action[row], t]
            weight = weight * torch.where(step.prev_reward[row] > 0.5, p, 1.0 - p)
        weight = weight / weight.sum()
        now = many[:, :, 10]
        mean = (weight[:, None] * now).sum(0)
        error = ((weight[:, None] * (now - mean)) ** 2).sum(0).sqrt()
        assert bool(((belief.moments(state)[0][row] - mean).abs() < 5 * error).all())  # type: ignore[attr-defined]


def test_the_density_of_a_walk_integrates_to_one():
    """Two pulls, of the first arm: a fine grid over both its probabilities; the second arm was not pulled."""
    family = metarl.make("metarl/RestlessBandit-v0", horizon=2, step_size=0.3)
    belief = belief_of(family)
    step = play(family, family.sample_tasks(rng.key(0), 1), steps=1)
    pulled = step[1]._replace(prev_action=torch.tensor([0]), prev_reward=torch.tensor([1.0]))
    state = last(belief, [step[0], pulled])
    n = 24
    p = (torch.arange(n) + 0.5) / n
    grid = torch.cartesian_prod(p, p, p, p).reshape(-1, 2, 2)
    many = type(state)(*(field.expand(len(grid), *field.shape[1:]) for field in state))
    task = metarl.envs.bandits.walk.Walk(grid, torch.full((len(grid),), 0.3))
    density: Tensor = belief.log_prob(many, task).double().exp()
    assert float(density.mean()) == pytest.approx(1.0, abs=1e-2)


def visits(family: TaskFamily, task: Any) -> list[Step]:
    """What an agent sees that goes to one random point of the arc after the other."""
    env, keys = BatchEnv(family, task, rng.key(0)), rng.fold(rng.key(1), torch.arange(num_rows(task)))
    seen = [env.reset()]
    for t in range(env.max_steps):
        angle = math.pi * rng.uniform(rng.fold(keys, t // 10), 1)
        aim = torch.cat([angle.cos(), angle.sin()], dim=1)
        seen.append(env.step((aim - seen[-1].obs).clamp(-0.1, 0.1))[1])
    return seen


@pytest.mark.parametrize(
    ("name", "options", "unfound", "over_all"),
    [
        ("SparsePointRobot", {}, 0.0036, 0.002),
        ("SparsePointRobot", {"dense": True}, 0.0002, 0.0002),
        ("SemiCircle", {}, 0.0032, 0.037),
    ],
)
def test_the_error_of_the_grid_of_angles(name: str, options: dict, unfound: float, over_all: float):
    """What the docstring says, next to a grid that is eight times as fine."""
    family = metarl.make(f"metarl/{name}-v0", **options)
    coarse, task = belief_of(family), family.sample_tasks(rng.key(0), 100)
    assert isinstance(coarse, GoalOnArc)
    fine, history = GoalOnArc(coarse.distances, 1.0, cells=5760), visits(family, task)
    found, before, errors = torch.zeros(100, dtype=torch.bool), [], []
    for step, one, other in zip(history, inferred(coarse, history)[1:], inferred(fine, history)[1:], strict=True):
        found = found | (step.prev_reward > 0.0)
        pooled = fine.probs(other).reshape(100, 720, 8).sum(-1)
        errors.append(0.5 * (coarse.probs(one) - pooled).abs().sum(-1))
        before.append(errors[-1][~found])
        assert bool(coarse.log_prob(one, task).isfinite().all()) and bool(fine.log_prob(other, task).isfinite().all())
    assert float(torch.cat(before).mean()) < unfound and float(torch.stack(errors).mean()) < over_all


def test_the_features_show_where_on_the_arc_the_goal_is():
    family = metarl.make("metarl/SparsePointRobot-v0", dense=True)
    belief, task = belief_of(family), family.sample_tasks(rng.key(0), 20)
    first, *_, end = inferred(belief, visits(family, task)[:10])
    mean, std, _ = belief.features(first)[:, -6:].chunk(3, dim=1)
    # Of cos θ and sin θ for θ ~ U[0, π).
    torch.testing.assert_close(mean, torch.tensor([0.0, 2.0 / math.pi]).expand(20, 2), rtol=0, atol=1e-4)
    torch.testing.assert_close(std, torch.tensor([0.5, 0.5 - 4.0 / math.pi**2]).sqrt().expand(20, 2), rtol=0, atol=1e-4)
    mean, std, nearest = belief.features(end)[:, -6:].chunk(3, dim=1)
    torch.testing.assert_close(mean, task.position, rtol=0, atol=0.01)
    assert float(std.max()) < 0.01
    torch.testing.assert_close(nearest, task.position - end.position, rtol=0, atol=0.02)


def test_the_features_show_the_nearest_place_that_was_not_searched():
    belief = belief_of(metarl.make("metarl/SparsePointRobot-v0"))
    assert isinstance(belief, GoalOnArc)
    state, cells = belief.prior(2), torch.arange(belief.count)
    # What is left are the first and the last tenth of the arc; one row stands near its end, the other at its start.
    left = torch.where((cells < 72) | (cells >= 648), 0.0, -torch.inf).expand(2, -1)
    state = state._replace(log_mass=left.log_softmax(-1), position=torch.tensor([[-0.6, 0.8], [1.0, 0.0]]))
    angle = torch.tensor([648.5 / 720, 0.5 / 720]) * math.pi
    expected = torch.stack([angle.cos(), angle.sin()], dim=1) - state.position
    torch.testing.assert_close(belief.features(state)[:, -2:], expected, rtol=0, atol=1e-5)


def test_what_was_searched_is_ruled_out_and_what_was_not_is_not():
    """By many goals, each of which says itself whether it would have paid."""
    family = metarl.make("metarl/SparsePointRobot-v0", horizon=40)
    belief = belief_of(family)
    history = visits(family, family.sample_tasks(rng.key(0), 20))[:40]
    goals, checked = family.sample_tasks(rng.key(5), 5000).position, 0
    for row in range(20):
        # The place after each action, which the next observation shows.
        places = torch.stack([step.obs[row] for step in history[1:]])
        paid = torch.stack([step.prev_reward[row] for step in history[1:]])
        if bool((paid > 0).any()):
            continue
        checked += 1
        possible = ((places[:, None] - goals).norm(dim=-1) > 0.2).all(0)
        state = take(last(belief, history), torch.full((5000,), row))
        density = belief.log_prob(state, metarl.envs.points.plane.Goal(goals))
        assert bool((density[possible] > -torch.inf).all())
        assert float((density[~possible] > -torch.inf).float().sum()) < 0.01 * 5000, "only in the cells of the edges"
        expected = 1.0 / (math.pi * float(possible.float().mean()))
        assert float(density[possible].exp().mean()) == pytest.approx(expected, rel=0.05)
    assert checked > 3


def test_one_step_tells_the_wind():
    family = metarl.make("metarl/WindyPoint-v0", episodes_per_trial=2)
    for split in ("train", "ood"):
        belief, task = belief_of(family, split), family.sample_tasks(rng.key(0), 50, split)
        states = inferred(belief, play(family, task))
        for state in states[2:]:
            torch.testing.assert_close(belief.features(state)[:, 1:], task.drift / 0.08, rtol=0, atol=2e-5)
        area = {"train": 0.16**2, "ood": 0.24**2 - 0.16**2}[split]
        torch.testing.assert_close(belief.log_prob(states[1], task), torch.full((50,), -math.log(area)))
        other = family.sample_tasks(rng.key(1), 50, split)
        assert bool((belief.log_prob(states[2], other) == -torch.inf).all())


@pytest.mark.parametrize(
    ("name", "mean_error", "most"), [("Navigation2D", 0.0009, 0.003), ("PointRobot", 0.0024, 0.01)]
)
def test_distances_tell_the_goal(name: str, mean_error: float, most: float):
    """Standard deviations are those of the errors while little is known; in the end the goal is known to an arc."""
    family = metarl.make(f"metarl/{name}-v0")
    belief, task = belief_of(family), family.sample_tasks(rng.key(0), 2000)
    assert isinstance(belief, GoalByDistance)
    states = inferred(belief, play(family, task, steps=12))
    for state in states[:3]:
        mean, std = belief.moments(state)
        assert float(((mean - task.position) / std).square().mean()) == pytest.approx(1.0, rel=0.05)
    error = (belief.moments(states[-1])[0] - task.position).norm(dim=-1)
    assert float(error.mean()) < mean_error and float(error.max()) < most
    arc = states[-1].radius * math.pi / belief.cells
    assert bool((error <= 2.1 * arc + 1e-5).all())


def test_the_density_of_a_goal_on_the_circle_integrates_to_one():
    family = metarl.make("metarl/Navigation2D-v0")
    belief, task = belief_of(family), family.sample_tasks(rng.key(0), 20)
    state = inferred(belief, play(family, task, steps=1))[2]
    angle = 2.0 * math.pi * (torch.arange(7200) + 0.5) / 7200
    for row in range(20):
        here = take(state, torch.full((7200,), row))
        circle = here.centre + here.radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
        density = belief.log_prob(here, metarl.envs.points.plane.Goal(circle)).double().exp()
        assert float(density.mean() * 2.0 * math.pi * here.radius[0]) == pytest.approx(1.0, abs=1e-4)
        inside = (circle.abs() <= 0.5).all(-1)
        outside = float((density[~inside] > 0).float().mean()) if bool((~inside).any()) else 0.0
        assert bool((density[inside] > 0).all()) and outside < 0.1


def searched(family: TaskFamily, task: Any, steps: int) -> tuple[list[Step], list[Any]]:
    """What an agent sees that acts at random, and the states that it does not see."""
    env = BatchEnv(family, task, rng.key(0))
    keys = rng.fold(rng.key(1), torch.arange(num_rows(task)))
    seen, states = [env.reset()], [env.state]
    for t in range(steps):
        seen.append(env.step(random_action(family.action_space, rng.fold(keys, t)))[1])
        states.append(env.state)
    return seen, states


def test_the_goal_in_the_maze_by_a_table_of_goals_and_cells():
    """A dictionary of probabilities, filled step by step with the rules of the docstring."""
    family = metarl.make("metarl/MetaMaze-v0")
    belief, every = belief_of(family, "all"), family.tasks_of("all")
    goals = [tuple(goal) for goal in every.goal.tolist()]
    free = [*goals, (4, 4)]
    walls = every.walls[0]
    look = {cell: [float(walls[cell[0] + dx, cell[1] + dy]) for dy in (1, 0, -1) for dx in (-1, 0, 1)] for cell in free}
    task = take(every, torch.arange(0, 40, 4))
    history, states = searched(family, task, 199)
    reached = 0
    for row in range(10):
        table = {(goal, (4, 4)): 1.0 / 40 for goal in goals}
        for t, (step, state) in enumerate(zip(history, inferred(belief, history)[1:], strict=True)):
            if t:
                after: dict = {}
                dx, dy = [(0, 1), (1, 0), (0, -1), (-1, 0)][int(step.prev_action[row])]
                for (goal, (x, y)), chance in table.items():
                    cell = (x + dx, y + dy) if (x + dx, y + dy) in look else (x, y)
                    if (cell == goal) != (float(step.prev_reward[row]) > 0):
                        continue
                    for landing in [other for other in free if other != goal] if cell == goal else [cell]:
                        share = 1.0 / 40 if cell == goal else 1.0
                        after[goal, landing] = after.get((goal, landing), 0.0) + chance * share
                table = after
            seen = step.obs[row].tolist()
            table = {pair: chance for pair, chance in table.items() if look[pair[1]] == seen}
            total = sum(table.values())
            table = {pair: chance / total for pair, chance in table.items()}
            assert (tuple(task.goal[row].tolist()), tuple(states[t].position[row].tolist())) in table
            if t % 20 == 0 or t == 199:
                expected = [sum(chance for pair, chance in table.items() if pair[0] == goal) for goal in goals]
                torch.testing.assert_close(belief.probs(state)[row], torch.tensor(expected), rtol=1e-4, atol=1e-6)  # type: ignore[attr-defined]
                cells = (~walls).nonzero().tolist()
                places = [sum(chance for pair, chance in table.items() if pair[1] == tuple(cell)) for cell in cells]
                torch.testing.assert_close(belief.features(state)[row, 40:], torch.tensor(places), rtol=1e-4, atol=1e-6)
        reached += len({pair[0] for pair in table}) == 1
    assert reached > 0


@pytest.mark.parametrize("split", ["train", "ood"])
def test_one_choice_tells_the_right_object(split: str):
    """The offset and the sides are those of the hidden state; a choice tells the object, and nothing else does."""
    family = metarl.make("metarl/Harlow-v0", num_features=3)
    belief, task = belief_of(family, split), family.sample_tasks(rng.key(0), 200, split)
    history, hidden = searched(family, task, family.horizon * 6)
    exchanged = type(task)(task.wrong, task.right)
    chosen = torch.zeros(200, dtype=torch.bool)
    for step, state, known in zip(history, hidden, inferred(belief, history)[1:], strict=True):
        chosen |= step.prev_reward != 0
        there = (state.gaze - state.cross) % 17
        assert torch.equal(known.offset % 17, there) and torch.equal(known.fixated, state.fixated)
        right, other = belief.log_prob(known, task), belief.log_prob(known, exchanged)
        sure, unsure = known.seen & chosen, known.seen & ~chosen
        assert bool((right[sure] == 0.0).all()) and bool((other[sure] == -torch.inf).all())
        torch.testing.assert_close(right[unsure].exp(), torch.full_like(right[unsure], 0.5))
        pays = belief.features(known)[:, 2]
        expected = torch.where(sure & state.fixated, state.side.to(torch.float32), 0.0)
        torch.testing.assert_close(pays, expected)
    assert int(chosen.sum()) > 20
    prior = torch.full((200,), -6 * math.log(2.0) if split == "train" else 0.0)
    torch.testing.assert_close(belief.log_prob(belief.prior(200), task), prior)
    far = type(task)(task.right + 3.0, task.wrong)
    assert bool((belief.log_prob(belief.prior(200), far) == -torch.inf).all())
