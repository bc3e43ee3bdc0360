"""The same problem in other units is learned the same: rewards, observations, tasks and actions (metamorphic tests)."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from small_families import Reach, Target
from torch import Tensor

from metarl.agents.imitation import DAgger, DAggerConfig
from metarl.agents.maml import MAML, MAMLConfig
from metarl.agents.pearl import PEARL, PEARLConfig
from metarl.agents.r2d2 import R2D2Config
from metarl.agents.recurrent_sac import RecurrentSAC, RecurrentSACConfig
from metarl.agents.rl2 import RL2, RL2Config
from metarl.agents.varibad import VariBADConfig
from metarl.core import rng
from metarl.core.family import TaskFamily
from metarl.core.rollout import run_trial
from metarl.envs import GridNavi
from metarl.learning.estimators import mean_square

torch.set_num_threads(1)
ROWS = 32


class InUnits(TaskFamily):
    """`Reach`, measured otherwise: what an agent is shown and told is multiplied, actions are shifted too."""

    splits = ("train", "test")

    def __init__(self, reward=1.0, obs=1.0, task=1.0, action=1.0, shift=0.0) -> None:
        self.base, self.units = Reach(), (reward, obs, task, action, shift)
        self.horizon, self.episodes_per_trial = self.base.horizon, self.base.episodes_per_trial
        self.observation_space = gymnasium.spaces.Box(-obs, obs, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(shift - action, shift + action, (2,), np.float32)

    def draw_tasks(self, keys: Tensor, split: str) -> Target:
        return Target(self.base.draw_tasks(keys, split).position * self.units[2])

    def reset(self, task: Target, key: Tensor):
        return self.base.reset(task, key)

    def observe(self, task: Target, state) -> Tensor:
        return self.base.observe(task, state) * self.units[1]

    def step(self, task: Target, state, action: Tensor, key: Tensor):
        reward, _, of_task, unit, shift = self.units
        state, got, over = self.base.step(Target(task.position / of_task), state, (action - shift) / unit, key)
        return state, got * reward, over


def rl2(family: TaskFamily, seed: int = 1, **options) -> RL2:
    config = {"critic": "task", "aux_coef": 1.0, "hidden_size": 16, "head_size": 16, "lr": 3e-3} | options
    return RL2(RL2Config(meta_batch_size=ROWS, **config), family, seed)


def maml(family: TaskFamily, seed: int = 1, **options) -> MAML:
    return MAMLConfig(meta_batch_size=4, fast_batch_size=4, hidden_sizes=[8], **options).build(
        family, seed, torch.device("cpu")
    )


def train(agent, family: TaskFamily, iterations: int, rows: int = ROWS) -> list[float]:
    """The mean return of an episode in each iteration, in the units of `Reach`."""
    found = []
    for number in range(iterations):
        key = rng.fold(rng.key(0), number)
        trial = run_trial(agent, family, family.sample_tasks(rng.fold(key, 0), rows), rng.fold(key, 1))
        reward = family.units[0] if isinstance(family, InUnits) else 1.0
        found.append(float(trial[-1].outcome.reward.sum(0).mean()) / reward / family.episodes_per_trial)
        agent.update(trial, number / iterations)
    return found


def weights(agent) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in agent.net.parameters()])


POWERS = [{"reward": 2.0**10}, {"reward": 2.0**-12}, {"obs": 2.0**6}, {"task": 2.0**13}, {"task": 2.0**-10}]
POWERS += [{"action": 2.0**6}, {"action": 2.0**-9}]
POWERS += [{"action": 2.0**4, "reward": 2.0**-7, "obs": 2.0**-3, "task": 2.0**5}]


@pytest.mark.parametrize("units", POWERS, ids=str)
@pytest.mark.parametrize("options", [{}, {"norm_adv": False}, {"norm_obs": True}, {"head_size": 0}], ids=str)
def test_powers_of_two_change_no_bit_of_rl2(units, options):
    """Multiplying by a power of two is exact, so nothing may differ: no constant is added to what has a unit."""
    plain, other = Reach(), InUnits(**units)
    a, b = rl2(plain, **options), rl2(other, **options)
    train(a, plain, 4)
    train(b, other, 4)
    assert torch.equal(weights(a), weights(b))


@pytest.mark.parametrize("units", POWERS, ids=str)
@pytest.mark.parametrize("options", [{}, {"algorithm": "td3", "norm_obs": True}], ids=str)
def test_powers_of_two_change_no_bit_of_recurrent_sac(units, options):
    config = RecurrentSACConfig(
        meta_batch_size=ROWS, critic="task", hidden_size=16, head_sizes=(16,), learning_starts=ROWS,
        updates_per_iteration=3, **options,
    )  # fmt: skip
    plain, other = Reach(), InUnits(**units)
    a, b = RecurrentSAC(config, plain, 1), RecurrentSAC(config, other, 1)
    train(a, plain, 3)
    train(b, other, 3)
    assert torch.equal(weights(a), weights(b))


@pytest.mark.parametrize("units", POWERS, ids=str)
@pytest.mark.parametrize("norm_obs", [False, True])
def test_powers_of_two_change_no_bit_of_pearl(units, norm_obs):
    config = PEARLConfig(
        meta_batch_size=ROWS, hidden_sizes=(16,), encoder_sizes=(16,), learning_starts=ROWS, updates_per_iteration=3,
        norm_obs=norm_obs,
    )  # fmt: skip
    plain, other = Reach(), InUnits(**units)
    a, b = PEARL(config, plain, 1), PEARL(config, other, 1)
    train(a, plain, 3)
    train(b, other, 3)
    assert torch.equal(weights(a), weights(b))


class Taught(InUnits):
    """The same, with the action that is best for who is told the task: the target itself."""

    def optimal_action(self, task: Target, obs: Tensor) -> Tensor:
        _, _, of_task, unit, shift = self.units
        return shift + unit * task.position / of_task


@pytest.mark.parametrize("units", POWERS, ids=str)
@pytest.mark.parametrize("norm_obs", [False, True])
def test_powers_of_two_change_no_bit_of_dagger(units, norm_obs):
    config = DAggerConfig(meta_batch_size=ROWS, hidden_size=16, teacher="optimal", beta=0.5, norm_obs=norm_obs)
    agents = [DAgger(config, family, 1) for family in (Taught(), Taught(**units))]
    losses = [[agent.learn("train").metrics["loss/cross_entropy"] for _ in range(3)] for agent in agents]
    assert losses[0] == losses[1] and losses[0][0] > losses[0][2]
    assert torch.equal(*(weights(agent) for agent in agents))


@pytest.mark.parametrize(
    "units", [{"reward": 2.0**10}, {"obs": 2.0**-6}, {"action": 2.0**6}, {"reward": 2.0**-9, "task": 2.0**4}], ids=str
)
@pytest.mark.parametrize("options", [{}, {"outer": "ppo"}, {"baseline": "network"}, {"norm_adv": False}], ids=str)
def test_powers_of_two_change_no_bit_of_maml(units, options):
    plain, other = Reach(), InUnits(**units)
    a, b = maml(plain, **options), maml(other, **options)
    train(a, plain, 3, rows=4)
    train(b, other, 3, rows=4)
    torch.testing.assert_close(weights(a), weights(b), rtol=0, atol=0)


@pytest.mark.parametrize(
    "units",
    [
        {"action": 1000.0},
        {"action": 1.0, "shift": 1000.0},
        {"reward": 0.01},
        {"reward": 1e4},
        {"task": 1e4},
        {"obs": 300.0},
    ],
    ids=str,
)
def test_the_first_update_is_the_same_in_other_units(units):
    """Up to rounding: 1000 ± 1 leaves four digits of an action."""
    plain, other = Reach(), InUnits(**units)
    a, b = rl2(plain), rl2(other)
    train(a, plain, 1)
    train(b, other, 1)
    torch.testing.assert_close(weights(a), weights(b), rtol=0, atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "units",
    [{"action": 1000.0}, {"action": 1.0, "shift": 1000.0}, {"reward": 0.01}, {"reward": 1e4}, {"task": 1e4}],
    ids=str,
)
def test_learning_in_other_units_lies_within_the_spread_of_seeds(units):
    """Means of the last ten iterations: one of 32 trials alone is as noisy as the seeds differ."""
    plain, other = (
        [train(rl2(family, seed), family, 60)[-10:] for seed in (1, 2, 3)] for family in (Reach(), InUnits(**units))
    )
    learned, start = np.mean(plain, axis=1), train(rl2(Reach()), Reach(), 1)[0]
    assert learned.min() > start + 1.0, "it does learn"
    assert abs(np.mean(other) - np.mean(plain)) <= np.ptp(learned)


@pytest.mark.parametrize(("low", "high"), [(-np.inf, np.inf), (0.0, np.inf), (-np.inf, 0.0)])
def test_actions_without_bounds_are_learned_too(low, high):
    class Free(Reach):
        def __init__(self) -> None:
            super().__init__()
            self.action_space = gymnasium.spaces.Box(low, high, (2,), np.float32)

    family = Free()
    metrics = [train(agent, family, 2, rows) for agent, rows in ((rl2(family), ROWS), (maml(family), 4))]
    assert np.isfinite(metrics).all()


SIZED = {
    "RL2": (RL2Config(hidden_size=8, num_minibatches=2), lambda agent: agent.net.encoder),
    "R2D2": (R2D2Config(hidden_size=8, learning_starts=99), lambda agent: agent.net.online.encoder),
    "RecurrentSAC": (RecurrentSACConfig(hidden_size=8, learning_starts=99), lambda agent: agent.net.encoder),
    "PEARL": (PEARLConfig(rounds=2, learning_starts=99, hidden_sizes=(8,)), lambda agent: agent.net.scaling),
    "VariBAD": (VariBADConfig(gru_size=8, num_minibatches=2, vae_updates=1), lambda agent: agent.net.belief.steps),
}


@pytest.mark.parametrize("name", SIZED)
def test_seeds_differ_in_their_parameters_and_in_what_is_drawn(name: str):
    agents = [SIZED[name][0].build(GridNavi(1), seed, torch.device("cpu")) for seed in (0, 1)]
    first, second = ({k: v for k, v in agent.state_dict().items() if k.endswith("weight")} for agent in agents)
    assert not any(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(agents[0].key, agents[1].key)


@pytest.mark.parametrize("name", SIZED)
def test_the_unit_of_rewards_is_their_size_from_the_first_update_on(name: str):
    """Until then rewards are shown as 0."""
    config, encoder = SIZED[name]
    family = GridNavi(episodes_per_trial=1)
    agent = config.build(family, 0, torch.device("cpu"))
    trial = run_trial(agent, family, family.sample_tasks(rng.key(0), 8), rng.key(0))
    agent.update(trial)
    sizes = torch.stack([mean_square((rollout.outcome.reward * rollout.mask).flatten()) for rollout in trial])
    torch.testing.assert_close(encoder(agent).reward_size, sizes.mean().sqrt())
