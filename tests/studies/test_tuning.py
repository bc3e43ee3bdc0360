"""Tuning: what a space may say, what a trial is worth, and that a study goes on where it stopped."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import optuna
import pytest

from metarl.cli.main import main
from metarl.studies.tuning import objective as objectives
from metarl.studies.tuning import study as studies
from metarl.studies.tuning.objective import Objective
from metarl.studies.tuning.space import SPACES, Dimension, find_space, read_space
from metarl.training.config import parsing
from metarl.training.config.errors import ConfigError

FIXED: dict[str, Any] = {
    "total_iterations": 4, "eval_every": 2, "eval_tasks": 16, "agent.meta_batch_size": 16, "num_threads": 1,
}  # fmt: skip
SPACE = "agent.lr: {log: [1e-4, 1e-2], times: [[0.0, 1.0], [1.0, 0.0]]}\nagent.hidden_size: {choice: [4, 8]}\n"
PRESET = "rl2_bernoulli_bandit_n10"


@pytest.fixture
def space_file(tmp_path: Path) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(SPACE)
    return path


def made(tmp_path: Path, space_file: Path, target: float | None = None, **changes: Any) -> Objective:
    return Objective(PRESET, read_space(space_file), {**FIXED, **changes}, tmp_path / "runs", "valid", target)


def words(space_file: Path, out: Path, *more: str) -> list[str]:
    fixed = [f"--set={name}={value}" for name, value in FIXED.items()]
    return ["tune", PRESET, "--space", str(space_file), "--out", str(out), "--quiet", *fixed, *more]


def test_values_are_of_the_kind_that_was_asked_for(tmp_path: Path):
    path = tmp_path / "x.yaml"
    path.write_text(
        "agent.lr: {log: [1e-4, 1e-2]}\nagent.gamma: {uniform: [0.5, 1]}\nagent.update_epochs: {int: [1, 3]}\n"
        "agent.ent_coef: {choice: [0.1, [[0.0, 0.1], [1.0, 0.0]]]}\nagent.memory: {choice: [gru, lstm]}\n"
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen: dict[str, list[Any]] = {}
    for _ in range(60):
        trial = study.ask()
        for dimension in read_space(path):
            seen.setdefault(dimension.field, []).append(dimension.suggest(trial))
    assert all(1e-4 <= value <= 1e-2 for value in seen["agent.lr"])
    assert 10 < sum(value < 1e-3 for value in seen["agent.lr"]) < 50, "half of them below the geometric mean"
    assert all(0.5 <= value <= 1.0 for value in seen["agent.gamma"])
    assert set(seen["agent.update_epochs"]) == {1, 2, 3} and set(seen["agent.memory"]) == {"gru", "lstm"}
    assert 0.1 in seen["agent.ent_coef"] and [[0.0, 0.1], [1.0, 0.0]] in seen["agent.ent_coef"]


def test_a_schedule_is_the_number_times_its_factors():
    dimension = Dimension("agent.lr", "log", (1e-4, 1e-2), ((0.0, 1.0), (0.5, 0.5), (1.0, 0.0)))
    value = dimension.suggest(optuna.trial.FixedTrial({"agent.lr": 0.002}))  # type: ignore[arg-type]
    assert value == [[0.0, 0.002], [0.5, 0.001], [1.0, 0.0]]
    assert dimension.extremes() == [[[0.0, 1e-4], [0.5, 5e-5], [1.0, 0.0]], [[0.0, 1e-2], [0.5, 5e-3], [1.0, 0.0]]]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "must consist of 'key: value' pairs"),
        ("agent.lr: 0.001\n", "must be one of"),
        ("agent.lr: {log: [0.0, 1.0]}\n", "log must be two positive numbers"),
        ("agent.lr: {log: [0.1, 0.01]}\n", "the lower one first"),
        ("agent.lr: {uniform: [0, .inf]}\n", "must be two numbers"),
        ("agent.hidden_size: {int: [1.5, 3]}\n", "two whole numbers"),
        ("agent.hidden_size: {int: [1, 3], choice: [2, 3]}\n", "must be one of"),
        ("agent.hidden_size: {choice: [3]}\n", "two values or more"),
        ("agent.lr: {uniform: [0.1, 0.2], step: 3}\n", "must be one of"),
        ("agent.lr: {uniform: [0.1, 0.2], times: 3}\n", "times must be points"),
        ("agent.hidden_size: {int: [1, 2], times: [[0, 1], [1, 0]]}\n", "have no schedule"),
        ("seed: {int: [1, 3]}\n", "the study sets it"),
        ("final_eval_tasks: {choice: [1, 3]}\n", "the study sets it"),
        ("agent.lr: {uniform: [0.1, 2.0]}\n", "lr must lie in [0, 1]"),
        ("agent.hiden_size: {choice: [3, 4]}\n", "hidden_size"),
        ("agent.memory: {choice: [gru, gro]}\n", "gro"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_trained(
    text: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "space.yaml"
    path.write_text(text)
    assert main(words(path, tmp_path / "out")) == 2
    found = capsys.readouterr()
    assert sentence in found.err and found.err.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", sorted(SPACES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_spaces_of_the_package_fit(path: Path, tmp_path: Path):
    Objective("rl2_gridnavi", read_space(find_space(path.stem)), {}, tmp_path, "all").check()


def test_a_name_that_is_no_space(tmp_path: Path):
    with pytest.raises(ConfigError, match="Unknown search space: 'rl3'"):
        find_space("rl3")


def test_tuning_never_looks_at_test_tasks():
    assert objectives.split_of(parsing.read("rl2_bernoulli_bandit_n10")) == "valid"
    assert objectives.split_of(parsing.read("rl2_gridnavi")) == "all", "which it trains on, as in the literature"


def test_the_command_writes_what_it_found_and_goes_on(
    space_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    assert main(words(space_file, out, "--trials", "2")) == 0
    assert main(words(space_file, out, "--trials", "3")) == 0
    assert "Best trials of 3" in capsys.readouterr().out
    rows = list(csv.DictReader((out / "trials.csv").read_text().splitlines()))
    assert [row["trial"] for row in rows] == ["0", "1", "2"]
    best = max((row for row in rows if row["state"] == "complete"), key=lambda row: float(row["value"]))
    config = parsing.read(out / "best.yaml")
    assert [*map(list, config.agent.lr)] == json.loads(best["agent.lr"]) and config.agent.hidden_size == int(
        best["agent.hidden_size"]
    )
    assert config.total_iterations == 4, "what was set for all trials stays"
    run = [json.loads(line) for line in (out / f"trial_000{best['trial']}" / "metrics.jsonl").read_text().splitlines()]
    assert run[-1]["eval/valid/score"] == float(best["value"])
    assert not any("eval/test" in name or "eval/ood" in name for line in run for name in line)


def test_a_study_is_about_one_thing(space_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    first = made(tmp_path, space_file)
    out.mkdir()
    studies.open_study(f"sqlite:///{out}/study.db", PRESET, first, 0)
    space_file.write_text(SPACE.replace("1e-2", "2e-2"))
    assert main(words(space_file, out)) == 2
    assert "has another space" in capsys.readouterr().err


def test_another_machine_may_have_other_threads(space_file: Path, tmp_path: Path):
    storage = f"sqlite:///{tmp_path}/study.db"
    for threads in (1, 2):
        studies.open_study(storage, "x", made(tmp_path, space_file, num_threads=threads), 0)
    with pytest.raises(ConfigError, match="has another fixed"):
        studies.open_study(storage, "x", made(tmp_path, space_file, total_iterations=6), 0)


@pytest.mark.parametrize("storage", ["nonsense", "sqlite:////nowhere/at/all.db", "notadb://x"])
def test_a_storage_that_cannot_be_opened(
    storage: str, space_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(words(space_file, tmp_path / "out", "--storage", storage)) == 2
    assert "cannot be opened" in (found := capsys.readouterr().err) and found.count("\n") == 1


@pytest.mark.parametrize("given", [["--trials", "0"], ["--workers", "0"], ["--set", "seed"], ["--set", "agent.lr=[1"]])
def test_wrong_options(given: list[str], space_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(words(space_file, tmp_path / "out", *given)) == 2
    assert capsys.readouterr().err.count("\n") == 1


def history(folder: Path, scores: list[float]) -> Path:
    """A run's metrics: a second of training an iteration, an evaluation every second one."""
    folder.mkdir(parents=True)
    lines = []
    for number, score in enumerate(scores):
        lines += [{"time/collect": 0.25, "time/update": 0.75}, {"time/collect": 0.5, "time/update": 0.5, "s": score}]
        lines[-1]["iteration"] = number
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_what_a_run_is_worth(tmp_path: Path):
    run = history(tmp_path / "run", [1.0, 3.0, 2.5, 4.0])
    assert objectives.value_of(run, "s", None) == 4.0
    assert objectives.value_of(run, "s", 3.0) == 4.0, "seconds until the second evaluation"
    with pytest.raises(optuna.TrialPruned, match="was not reached"):
        objectives.value_of(run, "s", 5.0)
    with pytest.raises(ConfigError, match="no evaluation"):
        objectives.value_of(run, "other", None)


def test_seconds_to_a_target_are_minimised(space_file: Path, tmp_path: Path):
    near = made(tmp_path, space_file, target=-math.inf)
    study = optuna.create_study(direction=near.direction)
    value = near(study.ask())
    lines = (tmp_path / "runs" / "trial_0000" / "metrics.jsonl").read_text().splitlines()
    assert near.direction == "minimize" and len(lines) == 2, "it ends at the first evaluation"
    assert value == pytest.approx(
        sum(json.loads(line)[f"time/{part}"] for line in lines for part in ("collect", "update"))
    )


def test_a_run_that_is_worse_than_the_others_is_ended(space_file: Path, tmp_path: Path):
    objective = made(tmp_path, space_file)
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.ThresholdPruner(lower=1e6))
    with pytest.raises(optuna.TrialPruned):
        objective(study.ask())
    assert len((tmp_path / "runs" / "trial_0000" / "metrics.jsonl").read_text().splitlines()) == 2


def test_an_interrupted_trial_is_gone_on_with(space_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    objective = made(tmp_path, space_file)
    whole = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1))
    objective_whole = made(tmp_path / "whole", space_file)
    whole.optimize(objective_whole, n_trials=1)

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1))
    report, calls = optuna.Trial.report, []

    def interrupt(trial: optuna.Trial, value: float, step: int) -> None:
        report(trial, value, step)
        calls.append(step)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(optuna.Trial, "report", interrupt)
    with pytest.raises(KeyboardInterrupt):
        study.optimize(objective, n_trials=1)
    study.optimize(objective, n_trials=1)
    assert calls == [2, 4], "the second trial begins where the first was stopped"
    first, second = study.trials
    assert first.params == second.params and first.user_attrs == second.user_attrs == {"folder": "trial_0000"}
    assert second.value == whole.best_value, "as if nothing had happened"
    assert len((tmp_path / "runs" / "trial_0000" / "metrics.jsonl").read_text().splitlines()) == 4


def test_the_trial_of_a_dead_process_is_taken_up(space_file: Path, tmp_path: Path):
    objective = made(tmp_path, space_file)
    storage = f"sqlite:///{tmp_path}/study.db"
    study = studies.open_study(storage, "x", objective, 0, lost=1)
    with warnings.catch_warnings():  # outside of optimize nobody gives signs of life, which is the point
        warnings.simplefilter("ignore", UserWarning)
        lost = study.ask()
    for dimension in objective.space:
        dimension.suggest(lost)
    lost.set_user_attr("folder", "trial_0000")
    study._storage.record_heartbeat(lost._trial_id)  # type: ignore[attr-defined]  (what its process had said last)
    time.sleep(2.1)
    studies.search(study, objective, 1)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE"]
    assert study.trials[1].params == lost.params and study.trials[1].user_attrs["folder"] == "trial_0000"


@pytest.mark.slow
def test_several_processes_share_a_study(space_file: Path, tmp_path: Path):
    command = [sys.executable, "-m", "metarl", *words(space_file, tmp_path / "out", "--trials", "4", "--workers", "2")]
    subprocess.run(command, check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    rows = list(csv.DictReader((tmp_path / "out" / "trials.csv").read_text().splitlines()))
    assert len(rows) in (4, 5) and len({row["agent.lr"] for row in rows}) == len(rows), "each tries something else"
