"""Baselines and pictures that another project registers for its family are used like the package's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from small_families import Corridor
from toy import TOY, Guess

import metarl
import metarl.report.best_arm
from metarl.agents import family_extras
from metarl.agents.family_extras import pictures_for, register_picture
from metarl.agents.random import FixedAgent, RandomAgent, scripted
from metarl.agents.reference.catalogue import baseline, baselines_for
from metarl.cli.compare import main as compare
from metarl.training import checkpoint

TABLES = ("_BASELINES", "_PICTURES")


@pytest.fixture(autouse=True)
def tables_of_its_own(monkeypatch: pytest.MonkeyPatch):
    """What a test registers is forgotten after it."""
    for table in TABLES:
        before = getattr(family_extras, table)
        monkeypatch.setattr(family_extras, table, {name: dict(families) for name, families in before.items()})


class Told(FixedAgent):
    """Knows the hidden number."""

    def begin(self, num_tasks, task=None):
        return task.number

    def act(self, memory, step, key, greedy=False):
        return scripted(memory, step), memory


def told(family: Guess, device: torch.device) -> Told:
    return Told(device)


class Harder(Guess):
    """A subclass of a family with baselines."""


def test_a_baseline_of_one_s_own_plays_and_is_the_bound_of_the_steps():
    metarl.register_baseline(Guess, "oracle", told)
    family = Guess(3)
    assert baselines_for(family) == ["random", "ppo_scratch", "oracle"]
    curve = metarl.evaluate(baseline("oracle", family), family, tasks=5)
    assert (curve.returns == 2.0).all(), "it guesses right in both steps of every episode"
    played = metarl.evaluate(RandomAgent(family), family, tasks=5)
    assert played.steps is not None and np.allclose(played.steps.oracle, 1.0)


def test_a_baseline_is_for_exactly_its_class():
    metarl.register_baseline(Guess, "sure", told)
    assert "sure" not in baselines_for(Harder()) and "sure" not in baselines_for(Corridor())
    metarl.register_baseline(Harder, "sure", lambda family, device: RandomAgent(family, device))
    assert isinstance(baseline("sure", Harder()), RandomAgent) and isinstance(baseline("sure", Guess()), Told)


def test_an_id_stands_for_its_class():
    metarl.register_baseline("metarl/GridNavi-v0", "chance", RandomAgent)
    assert "chance" in baselines_for(metarl.make("metarl/GridNavi-v0", episodes_per_trial=2))
    with pytest.raises(ValueError, match="Did you mean 'metarl/GridNavi-v0'"):
        metarl.register_baseline("metarl/GridNavy-v0", "chance", RandomAgent)


def test_a_taken_name_is_refused_and_the_same_again_is_not():
    metarl.register_baseline(Guess, "sure", told)
    metarl.register_baseline(Guess, "sure", told)
    with pytest.raises(ValueError, match=r"^There is already a baseline 'sure' for Guess\.$"):
        metarl.register_baseline(Guess, "sure", RandomAgent)
    with pytest.raises(ValueError, match="must be registered for a TaskFamily class or its id, got <class 'int'>"):
        metarl.register_baseline(int, "sure", told)


def test_the_program_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(TOY)
    metarl.run("toy.yaml", total_iterations=1, run_dir="run")
    kind = type(checkpoint.load("run").family)
    metarl.register_baseline(kind, "sure", told)
    assert compare(["run", "--baselines", "sure", "--split", "test", "--tasks", "5", "--out", "out", "--quiet"]) == 0
    assert "sure" in capsys.readouterr().out


def test_a_picture_of_one_s_own_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(TOY)
    given = []

    def draw(family: Guess, curve: metarl.AdaptationCurve, watched: object) -> Figure | None:
        given.append((type(family).__name__, curve.split))
        return Figure(figsize=(2, 2)) if curve.split == "test" else None

    kind = type(metarl.run("toy.yaml", total_iterations=1, run_dir="first").agent.family)
    register_picture(kind, "guesses", draw)
    assert pictures_for(Harder()).keys() == pictures_for(Guess()).keys() == {"guesses"}
    assert not pictures_for(Corridor())
    metarl.run("toy.yaml", total_iterations=1, final_eval_tasks=10, run_dir="run")
    assert given == [("Guess", "test"), ("Guess", "ood")]
    assert Path("run/evaluation/test_guesses.png").read_bytes().startswith(b"\x89PNG")
    assert not Path("run/evaluation/ood_guesses.png").exists(), "it had nothing to show"


def test_the_package_s_bandits_have_one():
    assert pictures_for(metarl.make("metarl/BernoulliBandit-v0")).keys() == {"best_arm"}
    assert not pictures_for(metarl.make("metarl/GridNavi-v0"))
