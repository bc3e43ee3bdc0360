"""The agents that come with the package do what their presets claim, and (slow) the presets learn it from nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import metarl
from metarl import config
from metarl.checkpoint import PRETRAINED
from metarl.curve import AdaptationCurve
from metarl.train import main

SPLIT = {"rl2_gridnavi": "all", "rl2_darkroom": "all"}  # as their papers do; the others are tested on unseen tasks


def score_of(curve: AdaptationCurve) -> tuple[float, float]:
    """Mean return of a trial (of an episode of the last round, for MAML) and its standard error over tasks."""
    scores = curve.scores[0]
    return float(scores.mean()), float(scores.std(ddof=1) / np.sqrt(len(scores)))


@pytest.mark.parametrize("name", config.presets())
def test_a_shipped_agent_reaches_what_its_curve_says(name: str):
    """Other tasks than those of the shipped evaluation, so the two differ by chance alone."""
    agent, split = metarl.load(f"pretrained:{name}"), SPLIT.get(name, "test")
    claimed = json.loads((PRETRAINED / name / "curve.json").read_text("utf-8"))[split]["summary"]
    tasks = 1000 if agent.protocol.rounds == 1 else 100  # each played by many rows in every round
    score, error = score_of(metarl.evaluate(agent, agent.family, split, tasks=tasks, seed=123))
    claimed_error = (claimed["score_high"] - claimed["score_low"]) / 3.92  # of a 95 % interval
    assert abs(score - claimed["score"]) < 4.0 * np.hypot(error, claimed_error)


@pytest.mark.parametrize("name", config.presets())
def test_a_shipped_agent_is_the_preset(name: str):
    shipped, preset = config.read(PRETRAINED / name / "config.yaml"), config.parse(["--config", name]).config
    assert vars(shipped.agent) == vars(preset.agent) and vars(shipped.family).keys() == vars(preset.family).keys()
    assert (shipped.seed, shipped.total_iterations) == (preset.seed, preset.total_iterations)
    assert shipped.run_dir is None, "where the run lay is nobody's business"


def test_the_trained_maml_agent_reaches_the_published_curve():
    """Finn et al. 2017, Navigation2D: −11.7 after one gradient step, −3.23 after three (on 40 goals)."""
    agent = metarl.load("pretrained:maml_navigation2d")
    after = metarl.evaluate(agent, agent.family, "test", tasks=150, seed=7).mean()
    assert after[0] < -30 and after[1] > -11.7 - 1.5 and after[3] > -3.4, "1.5: twice the standard error of 150 goals"


def test_the_trained_agent_for_gridnavi_is_bayes_optimal():
    """By its likeliest actions: 4 in the first episode, then the known-task optimum (Zintgraf et al. 2020)."""
    agent = metarl.load("pretrained:rl2_gridnavi")
    every_goal = agent.family.enumerate_tasks("all")  # type: ignore[attr-defined]
    curve = metarl.evaluate(agent, agent.family, "all", tasks=every_goal, greedy=True)
    np.testing.assert_allclose(curve.mean(), [4.0, *[232.5 / 21] * 3], atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "iterations", "at_least"),
    [
        ("rl2_bernoulli_bandit_n10", 60, 6.4),
        ("rl2_gridnavi", 100, 34.0),
        ("rl2_navigation2d", 50, -12.0),
        ("maml_navigation2d", 20, -8.0),  # after three gradient steps
        ("maml_tabular_mdp", 30, 16.0),
    ],
)
def test_a_preset_learns(name: str, iterations: int, at_least: float, tmp_path: Path):
    run, shorter = tmp_path / "run", f"--total_iterations={iterations}"
    assert main(["--config", name, shorter, "--eval_every=0", "--final_eval_tasks=1000", f"--run_dir={run}"]) == 0
    score, _ = score_of(AdaptationCurve.load(run / "evaluation" / f"{SPLIT.get(name, 'test')}.json"))
    assert score > at_least
