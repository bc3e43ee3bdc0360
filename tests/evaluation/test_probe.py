"""Probes: what is there is found, what is not there is not, and nothing that was held out enters a decoder."""

from __future__ import annotations

import builtins
import functools
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from small_families import Corridor

import metarl
from metarl.agents import MAMLConfig, R2D2Config, RecurrentSACConfig, RL2Config
from metarl.agents.belief import BeliefConfig
from metarl.agents.random import RandomAgent
from metarl.core import rng
from metarl.core.agent import AgentConfig, LearningAgent
from metarl.core.batch_env import make_env
from metarl.core.family import TaskFamily
from metarl.core.tree import features
from metarl.evaluation.probing import probe
from metarl.evaluation.probing.decoders import fit_ridge, fit_softmax, minimal
from metarl.evaluation.probing.decoding import Split, answers
from metarl.evaluation.probing.scores import Target, estimate, every_step, explained, repeated, shuffled
from metarl.evaluation.probing.trials import has_masses
from metarl.learning.memories import MEMORIES

CPU = torch.device("cpu")


@functools.cache
def family(name: str, **options: Any) -> TaskFamily:
    return metarl.make(f"metarl/{name}-v0", **options)


@functools.cache
def belief_agent(name: str, split: str = "train", **options: Any) -> LearningAgent:
    return BeliefConfig(split=split).build(family(name, **options), 0, CPU)


def rl2(of: TaskFamily, memory: str = "gru") -> LearningAgent:
    return RL2Config(memory=memory, hidden_size=16, meta_batch_size=8, num_minibatches=2).build(of, 0, CPU)


# ---- decoders -----------------------------------------------------------------------------------------------------


def normals(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def test_a_planted_linear_map_is_recovered():
    x, weight = normals(0, 400, 12), normals(1, 12, 3)
    found = fit_ridge(x, x @ weight + 0.01 * normals(2, 400, 3), np.arange(400))
    assert np.allclose(found, weight, atol=0.01)


def test_a_planted_softmax_is_recovered():
    x, weight = normals(0, 600, 4), normals(1, 4, 5)
    logits = x @ weight
    masses = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = fit_softmax(x, masses, np.zeros_like(masses), np.arange(600))
    said = np.exp(x @ found) / np.exp(x @ found).sum(1, keepdims=True)
    assert np.abs(said - masses).max() < 0.01


@pytest.mark.parametrize("strength", [1.0, 0.01])
def test_on_labels_the_softmax_is_scikit_learns_logistic_regression(strength: float):
    x, label = normals(0, 200, 3), np.random.default_rng(1).integers(0, 3, 200)
    mine = minimal(x, np.eye(3)[label], np.zeros((200, 3)), strength, np.zeros((3, 3)))
    theirs = LogisticRegression(C=1.0 / (200 * strength), fit_intercept=False, tol=1e-8, max_iter=500).fit(x, label)
    assert np.allclose(mine.T, theirs.coef_, atol=1e-3)


def planted(masses: bool, noise: float = 0.1) -> tuple[np.ndarray, Target, np.ndarray, Split]:
    """Memories of 300 trials at 2 steps that hold a target linearly; a third is held out."""
    memory = normals(0, 2, 300, 8)
    numbers = memory @ normals(1, 8, 4) + noise * normals(2, 2, 300, 4)
    values = np.exp(numbers) / np.exp(numbers).sum(-1, keepdims=True) if masses else numbers
    fit = np.arange(300) % 3 > 0
    return memory, Target(values, masses), np.ones((2, 300), dtype=bool), Split(fit, np.arange(300))


@pytest.mark.parametrize("masses", [False, True])
def test_what_a_memory_holds_is_found_and_shuffled_memories_hold_nothing(masses: bool):
    memory, target, alive, split = planted(masses)
    found = estimate(every_step(memory, target, alive, split), explained)
    assert (found.mean > 0.95).all() and (found.low <= found.mean).all() and (found.mean <= found.high).all()
    for seed in range(4):
        mixed = shuffled(memory, alive, split, rng.key(seed))
        nothing = estimate(every_step(mixed, target, alive, split), explained)
        assert (np.abs(nothing.mean) < 0.06).all(), nothing
        assert (nothing.low - 0.03 < 0.0).all() and (nothing.high + 0.03 > 0.0).all()


def test_shuffling_deals_whole_memories_within_a_step_and_a_part():
    memory, _, alive, split = planted(False)
    alive[1, :60] = False
    mixed = shuffled(memory, alive, split, rng.key(0))
    for step in range(2):
        for part in (split.fit, ~split.fit):
            rows = part & alive[step]
            dealt, before = mixed[step, rows], memory[step, rows]
            assert not np.array_equal(dealt, before)
            assert np.array_equal(np.sort(dealt, axis=0), np.sort(before, axis=0))
    assert np.array_equal(mixed[1, :60], memory[1, :60])


@pytest.mark.parametrize("masses", [False, True])
def test_what_is_held_out_never_enters_a_decoder(masses: bool):
    """With other targets and memories of one held-out trial, the errors on the others are the same, bit for bit."""
    memory, target, alive, split = planted(masses)
    before = answers(memory, target.values, alive, split, masses)
    odd = np.flatnonzero(~split.fit)[0]
    memory[:, odd], target.values[:, odd] = 7.0, target.values[:, odd][:, ::-1]
    after = answers(memory, target.values, alive, split, masses)
    others = before.unit != odd
    assert np.array_equal(before.error[others], after.error[others])
    assert np.array_equal(before.constant[others], after.constant[others])
    assert not np.array_equal(before.error[~others], after.error[~others])


def test_a_single_decoder_of_all_steps_gets_nothing_for_the_time():
    """A memory that counts steps, and a target that grows with them: nothing is explained beyond each step's mean."""
    step = np.arange(4)[:, None, None]
    memory = np.broadcast_to(step, (4, 90, 1)) + 1e-3 * normals(0, 4, 90, 1)
    target = Target(5.0 * step + normals(1, 4, 90, 1), False)
    split = Split(np.arange(90) % 3 > 0, np.arange(90))
    found = estimate(every_step(memory, target, np.ones((4, 90), dtype=bool), split), explained)
    assert abs(found.mean[-1]) < 0.05


def test_memories_that_were_fitted_to_are_counted():
    memory, _, alive, split = planted(False)
    assert repeated(memory, alive, split).tolist() == [0.0, 0.0]
    memory[0] = memory[0, 0]
    memory[1, ~split.fit] = np.where(np.arange(100)[:, None] < 25, memory[1, 1], 9.0)
    assert repeated(memory, alive, split).tolist() == [1.0, 0.25]


# ---- agents -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, split, steps", [("BernoulliBandit", "test", [0, 1, 5, 9]), ("GridNavi", "all", [0, 30, 59])]
)
def test_the_agent_whose_memory_is_the_belief_knows_all_of_it(name: str, split: str, steps: list[int]):
    options = {"episodes_per_trial": 10} if "Bandit" in name else {}
    found = probe(belief_agent(name, split, **options), split, 300, steps).belief
    assert found is not None and found.ceiling is not None
    assert np.isnan(found.memory.mean[0]), "nobody knows anything yet"
    assert (found.memory.mean[1:] > 0.95).all(), found.memory.mean
    assert np.abs(found.shuffled.mean[1:]).max() < 0.1
    assert np.allclose(found.memory.mean[1:], found.ceiling[1:], atol=0.05)


@pytest.mark.parametrize("memory", ["gru", "transformer", "none"])
def test_no_memory_knows_more_of_the_task_than_the_belief(memory: str):
    bandit = probe(rl2(family("BernoulliBandit", episodes_per_trial=5), memory), tasks=300)
    grid = probe(rl2(family("GridNavi"), memory), "all", tasks=120, steps=[5, 20, 50])
    assert bandit.task.measure == "R²" and grid.task.measure == "accuracy"
    assert bandit.held_out == "tasks" and grid.held_out == "trials"
    assert bandit.task.ceiling is not None and grid.task.ceiling is not None
    assert (bandit.task.memory.low <= bandit.task.ceiling + 0.01).all()
    assert (grid.task.memory.mean <= grid.task.ceiling + 1e-9).all(), "the mass of a guess is at most the largest"


def test_a_memory_that_sees_only_the_last_step_knows_less():
    bandit = family("BernoulliBandit", episodes_per_trial=20)
    last, whole = (probe(rl2(bandit, memory), tasks=300, steps=[15]).belief for memory in ("none", "gru"))
    assert last is not None and whole is not None and last.memory.high[0] < whole.memory.low[0]


def test_the_same_seed_is_the_same_probe_and_another_seed_another_one():
    agent = rl2(family("BernoulliBandit", episodes_per_trial=4))
    one, again, other = (probe(agent, tasks=90, seed=seed).task.memory.mean for seed in (3, 3, 4))
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_tasks_that_are_held_out_are_not_fitted_to():
    from metarl.evaluation.probing.probe import _play, _two_thirds
    from metarl.evaluation.probing.trials import Watch

    assert _two_thirds(9, rng.key(0)).sum() == 6
    agent = rl2(family("GridNavi"))
    for hold_out in ("tasks", "trials"):
        watch = Watch((1,), "state", agent.family.belief("all"), None)
        trials, split, held_out, distinct = _play(agent, "all", 100, 0, watch, hold_out)
        tasks = [{tuple(row) for row in trials.task[rows].tolist()} for rows in (split.fit, ~split.fit)]
        assert held_out == hold_out and distinct == 21 and len(split.fit) >= 100
        assert len(tasks[0] & tasks[1]) == (0 if hold_out == "tasks" else 21)
        assert not {*split.unit[split.fit]} & {*split.unit[~split.fit]}


def test_trials_that_are_over_are_left_out():
    found = probe(rl2(Corridor()), tasks=120, steps=[0, 4, 16])
    assert found.belief is None and found.task.ceiling is None
    assert found.fitted[0] == 80 and found.held[0] == 40 and found.fitted[2] < found.fitted[0]


def test_actions_of_the_belief_agent_are_its_own():
    agent = belief_agent("BernoulliBandit", episodes_per_trial=5)
    other = BeliefConfig(split="train").build(agent.family, 5, CPU)
    same, different = (probe(agent, tasks=60, belief_agent=each) for each in (agent, other))
    assert same.divergence is not None and np.abs(same.divergence.mean).max() < 1e-9
    assert same.lost is not None and same.lost.lost == 0.0
    assert different.divergence is not None and different.divergence.mean.min() > 1e-7
    with pytest.raises(ValueError, match="must act on the exact belief, as Belief does, got RL2"):
        probe(rl2(agent.family), tasks=60, belief_agent=rl2(agent.family))
    with pytest.raises(ValueError, match="must be for the same tasks: it was trained on BernoulliBandit"):
        probe(rl2(family("BernoulliBandit", episodes_per_trial=7)), tasks=60, belief_agent=agent)
    with pytest.raises(ValueError, match="prior is over the tasks of 'train', which lack some of 'all'"):
        probe(rl2(family("GridNavi")), "all", tasks=60, belief_agent=belief_agent("GridNavi"))


@pytest.mark.parametrize("memory", sorted(MEMORIES))
def test_what_agents_show_is_what_they_act_on(memory: str):
    agent = rl2(family("TabularMDP"), memory)
    check_shown(agent)


def test_what_the_belief_agent_shows_is_what_it_acts_on():
    check_shown(belief_agent("TabularMDP"))


@pytest.mark.parametrize("config, name", [(R2D2Config(), "TabularMDP"), (RecurrentSACConfig(), "WindyPoint")])
def test_agents_that_replay_trials_show_what_they_act_on(config: AgentConfig, name: str):
    check_shown(config.build(family(name), 0, CPU), known_policy=False)


def check_shown(agent: LearningAgent, known_policy: bool = True) -> None:
    """Parts keep their sizes, rows are independent, and the distribution is that of the action taken."""
    task = agent.family.sample_tasks(rng.key(0), 3)
    env, mind = make_env(agent.family, task, rng.key(1)), agent.begin(3)
    step, sizes = env.reset(), []
    for t in range(5):
        shown = agent.memory_features(mind, step)
        assert shown
        sizes.append({name: part.shape for name, part in shown.items()})
        acted, after = agent.act(mind, step, rng.fold(rng.fold(rng.key(2), t), torch.arange(3)))
        if known_policy:
            policy = agent.action_distribution(mind, step)
            assert policy is not None and torch.allclose(policy.log_prob(acted.action), acted.log_prob, atol=1e-6)
        if "state" in shown:
            assert torch.equal(
                shown["state"], features(after.state if isinstance(after.state, tuple) else (after.state,))
            )
        mind, (_, step) = after, env.step(acted.action)
    assert all(each == sizes[0] for each in sizes) and all(shape[0] == 3 for shape in sizes[0].values())


@pytest.mark.parametrize(
    "name, options",
    [
        ("BernoulliBandit", {}), ("DependentBandit", {}), ("GaussianBandit", {}), ("TabularMDP", {}),
        ("WindyPoint", {}), ("Navigation2D", {}), ("SparsePointRobot", {}), ("GridNavi", {}),
        ("BernoulliBandit", {"train_tasks": 5}),
    ],
)  # fmt: skip
def test_a_posterior_mean_is_the_best_guess(name: str, options: dict[str, int]):
    """Its errors have nothing to do with it: as means of the task given all that was seen must be."""
    of = metarl.make(f"metarl/{name}-v0")
    if options:
        of.train_on(options["train_tasks"])
    belief = of.belief("train")
    assert belief is not None
    task = of.sample_tasks(rng.key(0), 400)
    env, state = make_env(of, task, rng.key(1)), belief.prior(400)
    step, agent = env.reset(), RandomAgent(of)
    for t in range(8):
        state = belief.posterior(state, step)
        acted, _ = agent.act((), step, rng.fold(rng.fold(rng.key(2), t), torch.arange(400)))
        _, step = env.step(acted.action)
    mean, truth = belief.task_mean(state), features(task)
    assert mean is not None and mean.shape == truth.shape and mean.dtype == torch.float32
    for guess in (mean, torch.ones_like(mean)):
        product = ((truth - mean) * guess).sum(1).double()
        assert abs(product.mean()) < 4.5 * product.std() / 20 + 1e-3
    constant = truth - truth.mean(0)
    assert ((truth - mean) ** 2).sum() < 1.01 * (constant**2).sum()


def test_beliefs_are_decoded_as_masses_where_the_policy_sees_masses():
    assert has_masses(family("GridNavi").belief("all")) and not has_masses(family("BernoulliBandit").belief("train"))
    assert not has_masses(family("SparsePointRobot").belief("train")) and not has_masses(None)


# ---- mistakes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"split": "tset"}, "Unknown split of BernoulliBandit: 'tset'. Did you mean 'test'"),
        ({"tasks": 20}, "tasks must be at least 60, got 20."),
        ({"steps": [0, 5]}, "steps must be numbers of actions from 0 to 4, got"),
        ({"steps": [-1]}, "steps must be at least 0"),
        ({"part": "sate"}, "Unknown part of the memory of RL2: 'sate'. Did you mean 'state'"),
        ({"hold_out": "trial"}, "Unknown hold_out: 'trial'. Did you mean 'trials'"),
        ({"hold_out": "trials"}, "Every task is played once, so there are no further trials to hold out"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_a_mistake_is_one_sentence(options: dict[str, Any], sentence: str):
    with pytest.raises(ValueError) as found:
        probe(rl2(family("BernoulliBandit", episodes_per_trial=5)), **{"tasks": 60, **options})
    assert str(found.value).startswith(sentence)


def test_an_agent_without_a_memory_is_refused():
    with pytest.raises(ValueError, match="MAML has no memory of the trial that can be probed; agents such as RL2"):
        probe(MAMLConfig(meta_batch_size=2).build(family("BernoulliBandit"), 0, CPU), tasks=60)


def test_without_scikit_learn_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(
        ValueError, match=r"^scikit-learn is needed and not installed: pip install 'metarl\[probe\]'\.$"
    ):
        probe(rl2(family("BernoulliBandit", episodes_per_trial=5)), tasks=60)
