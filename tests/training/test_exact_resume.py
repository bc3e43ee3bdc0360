"""A run that is killed at any moment and resumed is bit for bit the run that nothing interrupted, for every agent.

Compared are all tensors of the checkpoint, its counters, the logged metrics but times, TensorBoard's points, and the
evaluation at the end.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_train import ROOT, assert_same_run
from toy import TOY

from metarl import train
from metarl.learning.memories import MEMORIES
from metarl.training import checkpoint

RL2 = "--agent=RL2 --agent.hidden_size=8 --agent.update_epochs=2 --agent.num_minibatches=2"
MAML = "--agent=MAML --agent.fast_batch_size=3 --agent.hidden_sizes=[8]"
PPO = "--agent=PPO --agent.batch_size=8 --agent.update_epochs=2 --agent.hidden_sizes=[8]"
SAC = "--agent=RecurrentSAC --agent.hidden_size=8 --agent.updates_per_iteration=2 --agent.learning_starts=8"
R2D2 = "--agent=R2D2 --agent.hidden_size=8 --agent.buffer_size=10 --agent.learning_starts=4 --agent.batch_size=4"
PEARL = "--agent=PEARL --agent.hidden_sizes=[8] --agent.encoder_sizes=[8] --agent.updates_per_iteration=2"
AGENTS = {
    **{f"RL² with {memory}": f"{RL2} --agent.memory={memory}" for memory in MEMORIES},
    "RL² with statistics": f"{RL2} --agent.norm_obs=true --agent.norm_adv=false --agent.critic=task",
    "RL² with a hypernetwork": f"{RL2} --agent.heads=hyper --agent.head_size=4",
    "MAML by TRPO": f"{MAML} --agent.outer=trpo",
    "MAML by PPO": f"{MAML} --agent.outer=ppo --agent.outer.num_minibatches=2",
    "Reptile": f"{MAML} --agent.outer=reptile",
    "ProMP": f"{MAML} --agent.outer=ppo --agent.outer.inner_kl_coef=.1 --agent.inner_loss=likelihood_ratio",
    "MAML with a learned baseline": f"{MAML} --agent.baseline=network --agent.norm_obs=true --agent.norm_adv=false",
    "Meta-SGD": f"{MAML} --agent.outer=ppo --agent.rates=per_parameter",
    "ANIL": f"{MAML} --agent.outer=trpo --agent.adapted=head",
    "Recurrent SAC": f"{SAC} --agent.batch_size=4 --agent.buffer_size=10 --agent.norm_obs=true",
    "R2D2": R2D2,
    "R2D2, stored states": f"{R2D2} --agent.replay_whole=2 --agent.sequence_length=2 --agent.burn_in=1",
    "PEARL": f"{PEARL} --agent.learning_starts=8 --agent.buffer_size=20 --agent.norm_obs=true "
    "--agent.inference=nearest",
    "PPO": PPO,
    "PPO, fine-tuned": f"{PPO} --agent.test_steps=1 --agent.fast_batch_size=2",
    "PPO, told the task": f"{PPO} --agent.task_input=true",
    "PPO, episodes cut short": f"{PPO} --agent.num_steps=3 --agent.batch_size=12",
    "RecurrentPPO": f"{PPO} --agent.recurrent=true --agent.lstm_size=8",
}
MOMENTS = {
    "before the first checkpoint": (1, "iteration"),
    "between two checkpoints": (3, "iteration"),
    "while a checkpoint is written": (4, "write"),
    "in the evaluation at the end": (5, "evaluation"),
}


def arguments(agent: str, run_dir: Path) -> list[str]:
    last = 4 if agent in EVALUATED else 0  # takes most of a run's time
    options = {
        "config": run_dir.parent / "toy.yaml", "run_dir": run_dir, "total_iterations": 5, "checkpoint_every": 2,
        "eval_every": 2, "eval_tasks": 4, "final_eval_tasks": last, "agent.meta_batch_size": 4,
    }  # fmt: skip
    return [*(f"--{name}={value}" for name, value in options.items()), *AGENTS[agent].split(), "--quiet"]


EVALUATED = ("RL² with gru", "PPO")
RUNS = list(dict.fromkeys([*((agent, "between two checkpoints") for agent in AGENTS),
                           *((agent, moment) for agent in EVALUATED for moment in MOMENTS)]))  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every run was started, and killed."""
    folder = tmp_path_factory.mktemp("runs")
    family = TOY[: TOY.index("agent:")] + TOY[TOY.index("total_iterations") :]
    (folder / "toy.yaml").write_text(family)
    runs = [(arguments(agent, folder / f"{agent}, {moment}"), *MOMENTS[moment]) for agent, moment in RUNS]
    (folder / "runs.json").write_text(json.dumps(runs))
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    here = [sys.executable, str(Path(__file__).with_name("killed_runs.py")), str(folder / "runs.json")]
    subprocess.run(here, env=environment, check=True, timeout=900)
    return folder


def points(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """TensorBoard's points but times."""
    found = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in found.Tags()["scalars"] if not tag.startswith("time/")]
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in tags}


def evaluations(run_dir: Path) -> dict[str, Any]:
    return {path.name: path.read_text("utf-8") for path in sorted((run_dir / "evaluation").glob("*.json"))}


@pytest.mark.parametrize(("agent", "moment"), RUNS)
def test_killed_and_resumed_is_uninterrupted(folder: Path, agent: str, moment: str):
    killed, whole = folder / f"{agent}, {moment}", folder / f"{agent}, whole"
    if not whole.exists():
        assert train.main(arguments(agent, whole)) == 0
    if moment != "before the first checkpoint":
        assert checkpoint.load_state(killed)[1].iteration == {1: 0, 3: 2, 4: 2, 5: 5}[MOMENTS[moment][0]]
    # What a resume must not depend on: the state of the global generators.
    torch.rand(7), np.random.rand(3), random.random()
    goes_on = [f"--resume={killed}"]
    if moment == "before the first checkpoint":  # there is nothing to resume
        goes_on = [*arguments(agent, killed), "--auto_resume"]
    assert train.main([*goes_on, "--quiet"]) == 0
    assert_same_run(killed, whole)
    left, right = (dataclasses.asdict(checkpoint.load_state(run)[1]) | {"seconds": 0} for run in (killed, whole))
    assert left == right
    best, best_too = (checkpoint.load_state(run, which="best")[0] for run in (killed, whole))
    assert all(torch.equal(best[name], best_too[name]) for name in best.keys() | best_too.keys())
    assert points(killed) == points(whole)
    assert evaluations(killed) == evaluations(whole) and len(evaluations(whole)) == (4 if agent in EVALUATED else 0)
