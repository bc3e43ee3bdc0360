"""PAIRED: regret, the generator's gradient, where the generator moves, and who learns from what."""

from typing import Any, NamedTuple

import gymnasium
import numpy as np
import pytest
import torch
from small_families import Corridor
from test_plr import KEY, make
from torch import Tensor

from metarl.agents.r2d2.config import R2D2Config
from metarl.core import rng
from metarl.core.agent import LearningAgent
from metarl.core.checks import pattern_task
from metarl.core.family import Key, TaskFamily
from metarl.core.rollout import Acted, TrialProtocol, run_trial
from metarl.core.tree import named_leaves, take
from metarl.envs.bandits.bernoulli import BernoulliBandit
from metarl.envs.control.acrobot import Acrobot
from metarl.envs.control.cartpole import CartPole
from metarl.envs.control.mountain_car import MountainCar, MountainCarContinuous
from metarl.envs.control.pendulum import Pendulum
from metarl.envs.grids.wall_maze import SIZE, WallMaze
from metarl.envs.points.navigation import Navigation2D
from metarl.learning.samplers.generator import Generator, TaskPolicy, generator_loss
from metarl.learning.samplers.paired import PAIRED, PAIREDOptions

MAKING = [WallMaze, Navigation2D, BernoulliBandit, CartPole, Pendulum, Acrobot, MountainCar, MountainCarContinuous]
"""The families that say what the fields of their tasks may be."""
PEAK = 0.6


class Place(NamedTuple):
    x: Tensor  # (B,) float32 in [-1, 1]


class Hill(TaskFamily[Place, Tensor]):
    """One step: action 1 pays what the task's place lies high on a hill around `PEAK`, action 0 pays nothing."""

    splits = ("train",)
    noisy = random_start = False
    horizon, episodes_per_trial = 1, 2
    observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    @property
    def task_space(self) -> dict[str, gymnasium.Space[Any]]:
        return {"x": gymnasium.spaces.Box(-1.0, 1.0, (), np.float32)}

    def draw_tasks(self, keys: Key, split: str) -> Place:
        return Place(2.0 * rng.uniform(keys, 1)[:, 0] - 1.0)

    def reset(self, task: Place, key: Key) -> Tensor:
        return torch.zeros_like(task.x)

    def observe(self, task: Place, state: Tensor) -> Tensor:
        return state[:, None]

    def step(self, task: Place, state: Tensor, action: Tensor, key: Key) -> tuple[Tensor, Tensor, Tensor]:
        height = torch.exp(-(((task.x - PEAK) / 0.5) ** 2))
        return state, torch.where(action == 1, height, 0.0), torch.zeros_like(action, dtype=torch.bool)


class Kind(NamedTuple):
    number: Tensor  # (B,) int64 in 3 … 6
    place: Tensor  # (B, 2) float32


class Kinds(Hill):
    """Tasks of a number and a place."""

    @property
    def task_space(self) -> dict[str, gymnasium.Space[Any]]:
        return {
            "number": gymnasium.spaces.Discrete(4, start=3),
            "place": gymnasium.spaces.Box(-2.0, 4.0, (2,), np.float32),
        }

    def draw_tasks(self, keys: Key, split: str) -> Kind:
        return Kind(3 + rng.integers(keys, 1, 2)[:, 0], 1.0 + rng.uniform(keys, 2))


class Always(LearningAgent):
    """An agent that always takes the same action, and notes what it is to learn from."""

    protocol = TrialProtocol()

    def __init__(self, action: int) -> None:
        self.action, self.learned = action, []

    def begin(self, num_tasks, task=None):
        return ()

    def act(self, memory, step, key, greedy=False):
        zero = torch.zeros(len(step.obs))
        return Acted(torch.full((len(zero),), self.action), zero, zero), memory

    def update(self, trial, progress=0.0):
        self.learned.append((trial, progress))
        return {"loss/policy": 0.5}


def hill(antagonist: int = 1, **options) -> PAIRED:
    """A sampler between a protagonist that always takes action 0 and an antagonist with another one."""
    sampler = PAIRED(PAIREDOptions(**options), make(Hill()), "train")
    sampler.opponents = sampler._opponents(rng.fold(KEY, torch.arange(2)))._replace(antagonist=Always(antagonist))
    return sampler


def played(sampler: PAIRED, number: int, n: int, protagonist: LearningAgent | None = None):
    """One iteration without the protagonist's update; the tasks and their regrets."""
    key, player = rng.fold(KEY, number), protagonist or Always(0)
    first = sampler.propose(key, n)
    assert first.player is not None and not first.learn
    sampler.score(first, run_trial(first.player, sampler.family, first.tasks, key))
    second = sampler.propose(rng.fold(key, 1), n)
    assert second.player is None and second.learn and second.tasks is first.tasks
    sampler.score(second, run_trial(player, sampler.family, second.tasks, key))
    return second.tasks, sampler.game.regret, sampler.learn(0.25)


def generator(family, **options) -> Generator:
    return Generator(family, "train", 1, torch.device("cpu"), **{"noise": 3, "hidden_size": 5, "lr": 0.1} | options)


def test_the_generator_moves_to_the_tasks_of_the_largest_regret():
    sampler = hill(lr=2e-2)
    rounds = [played(sampler, number, 64) for number in range(40)]
    (early, low, _), (late, high, _) = rounds[0], rounds[-1]
    assert abs(float(early.x.mean())) < 0.2
    assert abs(float(late.x.mean()) - PEAK) < 0.1 and float(late.x.std()) < 0.3 < float(early.x.std())
    assert low.mean() < 0.5 and high.mean() > 0.8


def test_the_gradient_is_that_of_naive_reinforce():
    """Task by task: the advantage times the gradient of the log-probability, written out; and the entropy's."""
    made, n = generator(Kinds()), 7
    net, written, advantage = made.net, made.write(KEY, n), torch.linspace(-1.0, 2.0, n)
    loss, metrics = generator_loss(net, written, advantage, clip_coef=0.2, ent_coef=0.3)
    loss.backward()
    found = {name: parameter.grad.clone() for name, parameter in net.named_parameters()}
    net.zero_grad()
    for row in range(n):
        number, place = (action[row] for action in written.actions)
        logits = net.parts[0](written.noise[row : row + 1]).log_probs[0]
        told = torch.cat([written.noise[row], (2.0 * number / 3 - 1.0)[None]])
        normal = net.parts[1](told[None])
        mean, std = normal.mean[0], normal.log_std[0].exp()
        likelihood = torch.exp(-0.5 * ((place - mean) / std) ** 2) / (std * (2 * torch.pi) ** 0.5)
        log_prob = logits.softmax(0)[number].log() + likelihood.log().sum()
        chances = logits.softmax(0)
        entropy = -(chances * chances.log()).sum() + (0.5 * (2 * torch.pi * torch.e * std**2).log()).sum()
        (-(advantage[row] * log_prob + 0.3 * entropy) / n).backward()
    assert sum(float(gradient.norm()) for gradient in found.values()) > 0.1
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)
    assert float(metrics["approx_kl"]) == pytest.approx(0.0, abs=1e-6)  # the policy that wrote the tasks


def test_the_units_of_regret_do_not_matter():
    one, other = generator(Kinds()), generator(Kinds())
    steps = {"epochs": 3, "clip_coef": 0.2, "ent_coef": 0.01, "max_grad_norm": 1.0}
    written, regret = one.write(KEY, 20), rng.uniform(KEY, 20)
    one.update(written, regret, **steps)
    other.update(written, 7.0 + 100.0 * regret, **steps)
    for a, b in zip(one.net.parameters(), other.net.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", MAKING)
def test_made_tasks_begin_as_those_of_the_split(kind):
    """All training tasks lie in the space, the first made ones have their means, and most can be played."""
    family = kind()
    tasks, made = family.sample_tasks(KEY, 400), generator(family)
    first = made.tasks(made.write(KEY, 400))
    for (name, own), its, pattern in zip(named_leaves(tasks).items(), first, pattern_task(family), strict=True):
        space = family.task_space[name]
        assert its.dtype == pattern.dtype and its.shape == own.shape
        for values in (own, its):
            box = isinstance(space, gymnasium.spaces.Box)
            low, high = (space.low, space.high) if box else (space.start, space.start + space.nvec - 1)
            assert (values.numpy() >= low - 1e-6).all() and (values.numpy() <= high + 1e-6).all(), name
        assert abs(float(own.double().mean() - its.double().mean())) < 0.2 * float(own.double().std()), name
    if kind is not WallMaze:
        family.check_task(first)


def test_made_mazes_have_walls_around_and_none_at_start_and_goal():
    family = WallMaze()
    made = generator(family)
    tasks, row = made.tasks(made.write(KEY, 200)), torch.arange(200)
    inside = tasks.walls[:, 1:-1, 1:-1]
    assert int(tasks.walls.sum() - inside.sum()) == 200 * 4 * (SIZE + 1)
    assert 0.25 < inside.float().mean() < 0.35
    for cell in (tasks.start, tasks.goal):
        assert not tasks.walls[row, cell[:, 0], cell[:, 1]].any()


@pytest.mark.parametrize("regret", ["best", "mean"])
def test_regret_is_of_the_antagonist_over_the_protagonist(regret: str):
    """By hand, from the returns of every episode; a task that cannot be played has none, and is replaced."""
    sampler = PAIRED(PAIREDOptions(regret=regret), make(), "train")
    n, key = 16, rng.fold(KEY, 5)
    proposal = sampler.propose(key, n)
    its = run_trial(proposal.player, sampler.family, proposal.tasks, key)
    sampler.score(proposal, its)
    (played,) = run_trial(sampler.agent, sampler.family, proposal.tasks, rng.fold(key, 1))
    # So much worse than the antagonist that no regret is 0 by chance.
    mine = [played._replace(outcome=played.outcome._replace(reward=played.outcome.reward - 0.125))]
    sampler.score(sampler.propose(key, n), mine)
    game = sampler.game
    assert 0 < int(game.possible.sum()) < n
    sampler.family.check_task(game.tasks)
    for row in range(n):
        returns = []
        for rollout in (its[0], mine[0]):
            episodes, time = [], 0
            for _ in range(2):
                episodes.append(0.0)
                ended = False
                while not ended:
                    episodes[-1] += float(rollout.outcome.reward[time, row])
                    ended = bool(rollout.outcome.terminated[time, row] or rollout.outcome.truncated[time, row])
                    time += 1
            returns.append(episodes)
        best = max(returns[0]) if regret == "best" else sum(returns[0]) / 2
        expected = best - sum(returns[1]) / 2 if game.possible[row] else 0.0
        assert float(game.regret[row]) == pytest.approx(expected, abs=1e-5)
    assert sampler.metrics()["tasks/regret"] == pytest.approx(float(game.regret.mean()))


def test_the_antagonist_learns_from_its_own_trial():
    sampler = hill()
    _, _, metrics = played(sampler, 0, 8)
    ((trial, progress),) = sampler.opponents.antagonist.learned
    assert progress == 0.25 and (trial[0].acted.action == 1).all() and metrics["antagonist/policy"] == 0.5


def test_opponents_are_other_agents_in_every_run():
    one, other = (PAIRED(PAIREDOptions(), make(Hill()), "train") for _ in range(2))
    one.propose(rng.key(1), 4)
    other.propose(rng.key(2), 4)
    nets = [part.state_dict() for part in (one.agent, one.opponents.antagonist, other.opponents.antagonist)]
    assert nets[0].keys() == nets[1].keys()
    name = max((name for name in nets[0] if name.endswith("weight")), key=lambda name: nets[0][name].numel())
    assert not any(torch.equal(a[name], b[name]) for a, b in ((nets[0], nets[1]), (nets[1], nets[2])))


def test_the_state_is_whole():
    sampler = PAIRED(PAIREDOptions(), make(Hill()), "train")
    assert sampler.state_dict() == {}
    played(sampler, 0, 16, sampler.agent)
    again = PAIRED(PAIREDOptions(), make(Hill()), "train")
    again.load_state_dict(sampler.state_dict())
    for each in (sampler, again):  # another iteration: the optimisers, too, are those of before
        played(each, 1, 16, sampler.agent)
    mine, its = sampler.state_dict(), again.state_dict()
    assert mine.keys() == its.keys() and all(torch.equal(mine[name], its[name]) for name in mine)
    sampler.load_state_dict({})
    assert sampler.opponents is None


def spaced(low: float, high: float, shape: tuple[int, ...]) -> LearningAgent:
    class Spaced(Hill):
        @property
        def task_space(self) -> dict[str, gymnasium.Space[Any]]:
            return {"x": gymnasium.spaces.Box(low, high, shape, np.float32)}

    return make(Spaced())


def r2d2() -> LearningAgent:
    return R2D2Config(hidden_size=8, meta_batch_size=4).build(Hill(), 0, torch.device("cpu"))


def listed() -> TaskFamily:
    family = Navigation2D()
    family.train_on(5)
    return family


@pytest.mark.parametrize(
    ("agent", "sentence"),
    [
        (lambda: make(Corridor()), "Corridor does not declare the space of their field 'length'"),
        (lambda: spaced(-np.inf, np.inf, ()), r"bounded Box spaces, but Spaced.task_space has Box\(-inf, inf"),
        (lambda: spaced(-1, 1, (2,)), r"the shapes of a task's fields, got \(2,\) for 'x', whose shape is \(\)"),
        (lambda: make(listed()), "the split 'train' of Navigation2D has a fixed list of them"),
        (r2d2, "whose replay buffer is not saved, and R2D2 has one"),
    ],
)
def test_who_cannot_be_served_is_told_so(agent, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        PAIRED(PAIREDOptions(), agent(), "train")


def test_a_row_of_written_tasks_does_not_depend_on_the_others():
    made = generator(WallMaze())
    whole, few = made.tasks(made.write(KEY, 12)), made.tasks(made.write(KEY, 5))
    assert all(torch.equal(a, b) for a, b in zip(take(whole, slice(0, 5)), few))


def test_fields_are_drawn_by_keys_of_their_own():
    """At first they are as in the sample, whatever the noise is: two fair coins agree in half of the tasks."""
    coins = torch.arange(4000) % 2
    space = {"first": gymnasium.spaces.Discrete(2), "second": gymnasium.spaces.Discrete(2)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        policy = TaskPolicy(space, 4, 8, {"first": coins, "second": coins})
    first, second = policy.write(rng.fold(rng.key(0), torch.arange(4000))).actions
    assert abs(float((first == second).float().mean()) - 0.5) < 0.05
