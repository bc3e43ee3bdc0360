"""`quick_check`: what `metarl.train` asks of a family before it trains, and that train asks it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
import toy  # noqa: F401  (registers toy/Guess-v0)
import wrong_families
from registered_families import IDS, PRESETS_ELSEWHERE
from small_families import Corridor, Reach, TwoDoors
from wrong_families import Line

import metarl
from metarl import train
from metarl.agents.random import RandomAgent
from metarl.core import agent as agent_registry
from metarl.core import registry, rng
from metarl.core.rollout import check_endings, run_trial
from metarl.testing import check_family, quick_check
from metarl.testing.contract import Broken, random_action
from metarl.training.config.errors import ConfigError
from metarl.training.config.parsing import parse, presets, read
from metarl.training.run_checks import check_run

RL2 = ["--agent=RL2", "--agent.meta_batch_size=8", "--agent.hidden_size=8", "--agent.num_minibatches=2"]
RL2 += ["--total_iterations=3", "--eval_every=0", "--final_eval_tasks=8", "--num_threads=1", "--device=cpu"]


@pytest.mark.parametrize("name", ["Line", "OwnSplit", "Free", "AllEqual", "Start"])
def test_families_without_a_fault(name: str):
    assert quick_check(getattr(wrong_families, name)()) == []


@pytest.mark.parametrize("family", [Corridor(), Reach(), TwoDoors()])
def test_the_small_families(family):
    assert quick_check(family) == []


@pytest.mark.parametrize("id", IDS)
def test_every_registered_family_at_once(id: str):
    family = metarl.make(id)
    quick_check(family)  # tables that are made once
    start = time.process_time()
    assert quick_check(family) == []
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize("preset", [name for name in presets() if name not in PRESETS_ELSEWHERE])
def test_every_preset_may_be_trained(preset: str):
    config = read(preset)
    assert quick_check(config.family, config.train_split) == []


FAULTS = {
    "Ends": r"^Ends\.step terminated an episode, but Ends\.terminates is False: .* terminates = True in the class\.$",
    "Double": r"^The rewards of Double\.step must be float32 of shape \(B,\), got float64 of shape \(7,\)",
    "Column": r"^The values of Column\.oracle must be float32 of shape \(B,\), got float32 of shape \(7, 1\)",
    "InPlace": r"^InPlace\.step modified its task or state in place",
    "Bug": r"^Bug\.step \(wrong_families\.py, line \d+\) failed: RuntimeError: .*\.$",
    "SameTask": r"^SameTask: 64 draws of a 'train' task are all equal",
    "Outside": r"^Outside: the observation \[.*\] is not in Box",
    "Shown": r"^Shown: the first observation depends on the task.*shows_task = True",
    "NoHorizon": r"^NoHorizon has no horizon",
    "Images": r"^Images\.action_space must be Discrete, or a one-dimensional MultiDiscrete or float32 Box, got Multi",
    "Pieces": r"^Pieces\.observation_space must be one flat vector .* of the shape \(2,\), got \(1,\)\.$",
    "Untaught": r"^Untaught\.target must be int64 of shape \(B,\), got float32 of shape \(7,\)",
    "TaughtTooMuch": r"^TaughtTooMuch\.target must be an action of Discrete\(2\), got 2\.$",
    "OptimalColumn": r"^OptimalColumn\.optimal_action must be int64 of shape \(B,\), got int64 of shape \(7, 1\)",
    "OptimalOutside": r"^OptimalOutside\.optimal_action must be an action of Discrete\(2\), got 2\.$",
    "OptimalNames": r"^OptimalNames\.optimal_actions must be bool of shape \(B, 2\), got int64 of shape \(7, 1\)",
    "OptimalOthers": r"^OptimalOthers\.optimal_actions must include optimal_action\.$",
    "OptimalAlone": r"^OptimalAlone has optimal_actions and no optimal_action, which is one of them\.$",
    "Loose": r"^Loose\.step must return \(state, reward, terminated\)",
}


@pytest.mark.parametrize("name", FAULTS)
def test_train_refuses_before_anything_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Broken, match=FAULTS[name]) as refused:
        quick_check(getattr(wrong_families, name)())
    assert train.main([f"--family=wrong/{name}-v0", *RL2]) == 2
    said = capsys.readouterr()
    assert said.err == f"metarl train: {refused.value}\n" and not said.out
    assert not list(tmp_path.iterdir())


def test_the_thorough_check_knows_these_faults_too():
    for name in FAULTS:
        with pytest.raises((Broken, RuntimeError)):
            check_family(getattr(wrong_families, name)())
    for name in ("NoDisplay", "NotANumber"):
        with pytest.raises((Broken, RuntimeError)):
            check_family(getattr(wrong_families, name)())


def test_faults_of_other_splits_and_of_pictures_are_said_and_spoil_no_training():
    (sentence,) = quick_check(wrong_families.NotANumber())
    assert sentence == "NotANumber: some of the 'test' tasks are not finite: they hold nan or inf."
    with pytest.raises(Broken, match="'test' tasks are not finite"):
        quick_check(wrong_families.NotANumber(), split="test")
    (sentence,) = quick_check(wrong_families.NoDisplay())
    assert sentence.startswith("NoDisplay.render (wrong_families.py, line ") and "RuntimeError: no display" in sentence


class FailsOnTest(Line):
    """Only tasks of `test` are such that a step fails."""

    def step(self, task, state, action, key):
        if bool((task.goal > 10).any()):
            raise KeyError("far")
        return super().step(task, state, action, key)

    def draw_tasks(self, keys, split):
        goal = super().draw_tasks(keys, split).goal
        return wrong_families.Goal(goal + 20 if split == "test" else goal)


def test_a_family_that_would_fail_in_the_evaluation_at_the_end_is_refused():
    with pytest.raises(Broken, match=r"FailsOnTest\.step \(.*\) failed: KeyError: 'far'\.$"):
        quick_check(FailsOnTest())


@pytest.mark.parametrize("option", ["--family=toy/Guess-v0", "--agent=RL2"])
def test_what_no_other_program_finds_is_refused(option: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(registry._REGISTERED_IN, "toy/Guess-v0", "__main__")
    monkeypatch.setitem(agent_registry._REGISTERED_IN, "RL2", "__main__" if "agent" in option else "metarl.agents")
    sentence = r"could not be loaded: .* give --allow MODULE, or allow=\[.MODULE.\] in Python\."
    with pytest.raises(ConfigError, match=sentence):
        check_run(parse(["--config=rl2_gridnavi", option]), warn=pytest.fail)


def test_own_names_of_splits_become_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    args = ["--family=wrong/OwnSplit-v0", *RL2, "--eval_splits=[validation]", "--eval_every=1", "--run_dir=run"]
    assert train.main(args) == 0
    assert Path("run/evaluation/validation.json").exists()
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert "eval/validation/score" in lines[0]


def test_an_own_split_has_a_stream_of_its_own():
    family = wrong_families.OwnSplit()
    one, other = (family.sample_tasks(rng.key(0), 100, split).goal for split in family.splits)
    assert not set(one.flatten().tolist()) & set(other.flatten().tolist())


def test_an_ending_too_seldom_for_the_check_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    family = wrong_families.EndsLate()
    assert quick_check(family) == [], "it does not see so far"
    assert train.main(["--family=wrong/EndsLate-v0", *RL2, "--total_iterations=20"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("metarl train: Training stopped in iteration ") and len(said.splitlines()) == 1
    assert "EndsLate.terminates is False" in said


def test_endings_of_a_trial():
    for family, wrong in ((wrong_families.Ends(), True), (Line(), False), (Corridor(), False)):
        trial = run_trial(RandomAgent(family), family, family.sample_tasks(rng.key(0), 8), rng.key(1))
        if wrong:
            with pytest.raises(ValueError, match="terminates is False"):
                check_endings(family, trial)
        else:
            check_endings(family, trial)


def test_the_final_evaluation_shows_its_progress_in_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert train.main(["--family=wrong/Line-v0", *RL2]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Evaluating")]
    assert shown == [f"Evaluating on 8 tasks of {split} ({n} of 2 splits)" for n, split in ((1, "train"), (2, "test"))]


def test_random_actions_lie_in_every_space():
    keys = rng.fold(rng.key(0), torch.arange(2000))
    box = gymnasium.spaces.Box
    low, high = np.array([-np.inf, 2.0, -np.inf, -1.0], np.float32), np.array([np.inf, np.inf, 5.0, 1.0], np.float32)
    spaces = [gymnasium.spaces.Discrete(3), gymnasium.spaces.Discrete(3, start=-1), box(-2, 7, (2,)), box(low, high)]
    for space in spaces:
        actions = random_action(space, keys)
        assert all(space.contains(action.numpy()) for action in actions)
        assert len(np.unique(actions.numpy(), axis=0)) >= 3
