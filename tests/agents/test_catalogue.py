"""Ready-made agents by name: each plays its family, and oracles and optimal ones are as good as they are called."""

from __future__ import annotations

import numpy as np
import pytest
from registered_families import IDS
from small_families import Corridor

import metarl
from metarl.agents.reference.catalogue import baseline, baselines_for
from metarl.evaluation.evaluator import evaluate

PAIRS = [(id, name) for id in IDS for name in baselines_for(metarl.make(id)) if name not in ("random", "ppo_scratch")]
SMALL = {
    "metarl/BernoulliBandit-v0": {"num_arms": 3, "episodes_per_trial": 8},
    "metarl/GaussianBandit-v0": {"num_arms": 3, "episodes_per_trial": 20},
    "metarl/DependentBandit-v0": {"structure": "easy", "episodes_per_trial": 10},
    "metarl/CartPole-v0": {"episodes_per_trial": 1},
    "metarl/Pendulum-v0": {"episodes_per_trial": 1},
    "metarl/Acrobot-v0": {"episodes_per_trial": 1},
    "metarl/MountainCarContinuous-v0": {"episodes_per_trial": 1},
}


def test_the_ready_made_agents_of_some_families():
    known = {id: baselines_for(metarl.make(f"metarl/{id}-v0")) for id in ("GridNavi", "BernoulliBandit", "CartPole")}
    samplers = ["psrl", "posterior_sampling", "posterior_sampling_by_episode"]
    assert known["GridNavi"] == ["random", "ppo_scratch", "oracle", "bayes_optimal", *samplers]
    bandit = ["bayes_optimal", "gittins", "thompson", "ucb1", "greedy", "epsilon_greedy"]
    assert known["BernoulliBandit"] == ["random", "ppo_scratch", *bandit]
    assert known["CartPole"] == ["random", "ppo_scratch", "oracle", "robust"]


@pytest.mark.parametrize(("id", "name"), PAIRS)
def test_a_baseline_plays_its_family_and_beats_random(id: str, name: str):
    family = metarl.make(id, **SMALL.get(id, {}))
    split = "all" if "all" in family.splits else "test"
    curve = evaluate(baseline(name, family), family, split, tasks=60)
    assert curve.random is not None
    last = curve.returns[0, :, -1].mean()
    standard_error = curve.returns[0, :, -1].std() / np.sqrt(60)
    assert last > curve.random.mean() - 2.0 * standard_error, "no worse than random"
    if name == "oracle" and curve.oracle is not None:
        gap = curve.oracle.mean() - curve.random.mean()
        assert curve.mean()[0] > curve.random.mean() + 0.7 * gap, "told the task, it is good from the start"


@pytest.mark.parametrize("id", ["metarl/BernoulliBandit-v0", "metarl/GridNavi-v0"])
def test_ppo_from_scratch_learns_each_task(id: str):
    """Only a little: ten updates are few. Its first point is a random policy's."""
    family = metarl.make(id)
    curve = evaluate(baseline("ppo_scratch", family), family, "train", tasks=2)
    assert curve.labels[-1] == "10 PPO updates" and curve.mean()[-1] > curve.mean()[0]


def test_a_family_of_a_user_s_has_random():
    family = Corridor()
    assert baselines_for(family) == ["random", "ppo_scratch"]
    assert evaluate(baseline("random", family), family, "test", tasks=5).returns.shape == (1, 5, 3)


def test_a_name_that_does_not_suit_says_which_do():
    with pytest.raises(ValueError, match=r"baseline for GridNavi: 'gittins'.* Known: random, ppo_scratch, oracle"):
        baseline("gittins", metarl.make("metarl/GridNavi-v0"))
    with pytest.raises(ValueError, match="'orcale'"):
        baseline("orcale", metarl.make("metarl/GridNavi-v0"))
