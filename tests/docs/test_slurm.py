"""The examples for SLURM with stand-ins for the cluster: programs of its names, and submitit on this machine."""

from __future__ import annotations

import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metarl.training import checkpoint

SLURM = Path(__file__).resolve().parents[2] / "examples" / "slurm"
pytestmark = pytest.mark.slow

PRESET = "rl2_bernoulli_bandit_n10"
TINY = ["--agent.meta_batch_size=7", "--agent.num_minibatches=2", "--agent.hidden_size=8", "--eval_every=0"]
TINY += ["--final_eval_tasks=0", "--checkpoint_every=5", "--total_iterations=300", "--quiet"]

PROGRAMS = {
    "srun": 'exec "$@"',
    "scontrol": 'if [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >> "$ASKED"; fi',
    "torchrun": f'exec {sys.executable} -m torch.distributed.run "$@"',
}


def start(tmp_path: Path) -> subprocess.Popen[str]:
    """Run the batch script, as SLURM would on the first machine of a job."""
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "1", "SLURM_JOB_NODELIST": "here", "GPUS": "2", "PORT": str(port)}
    job |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ASKED": str(tmp_path / "asked"), "OMP_NUM_THREADS": "1"}
    command = ["bash", str(SLURM / "train.sbatch"), PRESET, str(tmp_path / "run"), *TINY]
    return subprocess.Popen(command, env={**os.environ, **job}, stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(sys.platform != "linux", reason="SLURM is for Linux")
def test_a_job_saves_before_its_limit_and_goes_on_when_it_is_queued_again(tmp_path):
    first = start(tmp_path)
    for _ in range(2400):
        if (tmp_path / "run" / "checkpoint.safetensors").exists():
            break
        time.sleep(0.05)
    first.send_signal(signal.SIGUSR1)
    _, error = first.communicate(timeout=300)
    assert first.returncode == 0, error
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
    assert 5 <= checkpoint.load_state(tmp_path / "run")[1].iteration < 300
    second = start(tmp_path)
    _, error = second.communicate(timeout=300)
    assert second.returncode == 0, error
    assert checkpoint.load_state(tmp_path / "run")[1].iteration == 300


@pytest.mark.skipif(sys.platform != "linux", reason="SLURM is for Linux")
def test_submitit_starts_the_ranks_without_torchrun(tmp_path):
    submitit = pytest.importorskip("submitit")
    train = runpy.run_path(str(SLURM / "submit.py"))["Train"]
    executor = submitit.AutoExecutor(folder=tmp_path / "logs", cluster="local")
    executor.update_parameters(tasks_per_node=2, timeout_min=5)
    job = executor.submit(train(PRESET, str(tmp_path / "run"), *TINY, "--total_iterations=6"))
    assert job.results() == [0, 0]
    assert checkpoint.load_state(tmp_path / "run")[1].iteration == 6
