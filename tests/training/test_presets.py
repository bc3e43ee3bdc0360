"""The agents that come with the package do what their presets claim, and (slow) the presets learn it from nothing."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from registered_families import PRESETS_ELSEWHERE

import metarl
from benchmarks.presets import NOT_MEASURED, NOT_SHIPPED
from docs.make_two_step import effects, signature
from metarl.agents.reference.cognitive import TwoStepBayes
from metarl.core import rng
from metarl.core.tree import num_rows
from metarl.envs import SIMULATED
from metarl.evaluation import stats
from metarl.evaluation.curve import AdaptationCurve
from metarl.train import main
from metarl.training.checkpoint import PRETRAINED
from metarl.training.config import parsing as config
from metarl.training.config.file import PRESETS
from metarl.training.config.run_config import reported_split

NAMES = [n for n in config.presets() if n not in {*PRESETS_ELSEWHERE, *NOT_MEASURED, *NOT_SHIPPED}]

SAMPLED = [n for n in config.presets() if "\ntask_sampler:" in (PRESETS / f"{n}.yaml").read_text("utf-8")]


def split_of(name: str) -> str:
    """The split that a preset is about: tasks that training has not seen, or all where the paper has no others."""
    return reported_split(config.read(name))


def score_of(curve: AdaptationCurve) -> tuple[float, float]:
    """Mean return of a trial (of an episode of the last round, for MAML) and its standard error over tasks."""
    scores = curve.scores[0]
    return float(scores.mean()), float(scores.std(ddof=1) / np.sqrt(len(scores)))


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_agent_reaches_what_its_curve_says(name: str):
    """Other tasks than those of the shipped evaluation, so the two differ by chance alone."""
    agent, split = metarl.load(f"pretrained:{name}"), split_of(name)
    document = json.loads((PRETRAINED / name / "curve.json").read_text("utf-8"))[split]
    if agent.costly:  # training on each task takes long: what it has before that
        curve = metarl.evaluate(agent, agent.family, split, tasks=100, rounds=1, seed=123, step_curve=False)
        points = document["points"]
        error = (points["high"][0] - points["low"][0]) / 3.92
        assert abs(score_of(curve)[0] - points["mean"][0]) <= 4.0 * np.hypot(error, score_of(curve)[1])
        return
    claimed = document["summary"]
    tasks = 1000 if agent.protocol.rounds == 1 else 100  # each played by many rows in every round
    if type(agent.family).__name__ in itertools.chain(*SIMULATED.values()):
        tasks //= 4  # a step takes a thousand times as long
    if agent.family.opaque:
        tasks //= 10  # a simulator for each row
    score, error = score_of(metarl.evaluate(agent, agent.family, split, tasks=tasks, seed=123, step_curve=False))
    claimed_error = (claimed["score_high"] - claimed["score_low"]) / 3.92  # of a 95 % interval
    assert abs(score - claimed["score"]) <= 4.0 * np.hypot(error, claimed_error)


@pytest.mark.parametrize("name", SAMPLED)
def test_the_task_sampler_of_a_preset_accepts_its_agent_and_family(name: str):
    """Also of presets that were never run."""
    given = config.read(name)
    sampler = given.task_sampler.build(given.agent.build(given.family, 0, torch.device("cpu")), given.train_split)
    assert num_rows(sampler.propose(rng.key(0), 8).tasks) == 8


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_agent_is_the_preset(name: str):
    shipped, preset = config.read(PRETRAINED / name / "config.yaml"), config.parse(["--config", name]).config
    assert shipped.task_sampler == preset.task_sampler
    assert vars(shipped.agent) == vars(preset.agent) and vars(shipped.family).keys() == vars(preset.family).keys()
    assert (shipped.seed, shipped.total_iterations) == (preset.seed, preset.total_iterations)
    assert shipped.run_dir is None, "where the run lay is nobody's business"


def test_the_trained_maml_agent_reaches_the_published_curve():
    """Finn et al. 2017, Navigation2D: −11.7 after one gradient step, −3.23 after three (on 40 goals)."""
    agent = metarl.load("pretrained:maml_navigation2d")
    after = metarl.evaluate(agent, agent.family, "test", tasks=150, seed=7, step_curve=False).mean()
    assert after[0] < -30 and after[1] > -11.7 - 1.5 and after[3] > -3.4, "1.5: twice the standard error of 150 goals"


def test_the_trained_maml_agent_runs_as_the_published_one():
    """Finn et al. 2017, HalfCheetah's speed: −129.5, −78.6 ± 10 after one gradient step (on 40 goals)."""
    agent = metarl.load("pretrained:maml_half_cheetah_vel")
    after = metarl.evaluate(agent, agent.family, "test", tasks=40, rounds=2, seed=7, step_curve=False).mean()
    assert after[0] < -110 and after[1] > -78.6 - 10


def test_the_trained_agent_for_gridnavi_is_bayes_optimal():
    """Greedy: 4 in the first episode, then the known-task optimum (Zintgraf et al. 2020)."""
    agent = metarl.load("pretrained:rl2_gridnavi")
    every_goal = agent.family.enumerate_tasks("all")  # type: ignore[attr-defined]
    curve = metarl.evaluate(agent, agent.family, "all", tasks=every_goal, greedy=True, step_curve=False)
    np.testing.assert_allclose(curve.mean(), [4.0, *[232.5 / 21] * 3], atol=1e-3)


def test_the_trained_agents_for_dependent_arms_lose_little():
    """Regret in 100 pulls (Wang et al. 2016 plot about 1, 2 and 4); the least possible is .625, 1.0 and 2.312."""
    for structure, best, at_most in (("easy", 90.0, 1.0), ("medium", 75.0, 2.0), ("hard", 60.0, 4.0)):
        agent = metarl.load(f"pretrained:rl2_dependent_bandit_{structure}")
        score, error = score_of(metarl.evaluate(agent, agent.family, "all", tasks=4000, seed=7, step_curve=False))
        assert best - score < at_most + 2.0 * error, structure


def test_the_trained_agent_for_the_two_step_task_plans():
    """Rewards do not make it repeat its choice; rewards after common and failures after uncommon transitions do."""
    main, interaction = effects(signature(metarl.load("pretrained:rl2_two_step"), tasks=400).mean(0))
    _, of_the_planner = effects(signature(TwoStepBayes(), tasks=400).mean(0))
    assert abs(main) < 0.05 and interaction == pytest.approx(of_the_planner, abs=0.05)


def test_the_trained_agent_knows_new_objects_after_one_choice():
    """Harlow (1949): chance in the first round, then right; also with objects unlike those of training."""
    agent = metarl.load("pretrained:rl2_harlow")
    for split, at_least in (("test", 0.9), ("ood", 0.8)):
        rounds = metarl.evaluate(agent, agent.family, split, tasks=1000, seed=7, step_curve=False).mean()
        assert abs(rounds[0]) < 0.1 and (rounds[1:] > at_least).all()


@pytest.mark.parametrize("split", ["test", "ood"])
def test_memory_is_worth_something_where_dynamics_vary(split: str):
    """The same tasks, starts and noise for both, so the difference is taken task by task."""
    learned, control = (metarl.load(f"pretrained:{name}_pendulum") for name in ("rl2", "memoryless"))
    played = (
        metarl.evaluate(agent, agent.family, split, tasks=400, seed=7, step_curve=False) for agent in (learned, control)
    )
    a, b = (curve.scores[0] for curve in played)
    low, _ = stats.interval((a - b)[None, :, None])
    assert low[0] > 0.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "iterations", "at_least"),
    [
        ("rl2_bernoulli_bandit_n10", 60, 6.4),
        ("rl2_gridnavi", 100, 34.0),
        ("rl2_navigation2d", 50, -12.0),
        ("rl2_tmaze", 40, 0.95),
        ("rl2_dependent_bandit_easy", 60, 88.5),
        ("rl2_two_step", 40, 66.0),
        ("maml_navigation2d", 20, -8.0),  # after three gradient steps
        ("maml_tabular_mdp", 30, 16.0),
    ],
)
def test_a_preset_learns(name: str, iterations: int, at_least: float, tmp_path: Path):
    run, shorter = tmp_path / "run", f"--total_iterations={iterations}"
    assert main(["--config", name, shorter, "--eval_every=0", "--final_eval_tasks=1000", f"--run_dir={run}"]) == 0
    score, _ = score_of(AdaptationCurve.load(run / "evaluation" / f"{split_of(name)}.json"))
    assert score > at_least
