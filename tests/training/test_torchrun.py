"""Training by several processes that torchrun starts: one run, whose files rank 0 writes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from metarl.evaluation.curve import AdaptationCurve
from metarl.training import checkpoint

TINY = ["rl2_bernoulli_bandit_n10", "--agent.meta_batch_size=7", "--agent.num_minibatches=2", "--agent.hidden_size=8"]
TINY += ["--eval_tasks=5", "--eval_repeats=1", "--quiet"]


def torchrun(processes: int, *options: str, restarts: int = 0) -> subprocess.Popen[str]:
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", f"--max-restarts={restarts}"]
    # See docs/distributed.md: without it a restarted process is told the addresses of the dead ones.
    fresh = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"} if restarts else {}
    return subprocess.Popen(
        [sys.executable, "-m", *launcher, "-m", "metarl.train", *options],
        env={**os.environ, "OMP_NUM_THREADS": "1", **fresh},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def one(*options: str) -> None:
    subprocess.run([sys.executable, "-m", "metarl.train", *options, "--num_threads=1"], check=True, capture_output=True)


def rank_one(launcher: subprocess.Popen[str]) -> int:
    """The process id of rank 1."""
    for pid in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split():
        if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes():
            return int(pid)
    raise AssertionError("there is no rank 1")


def wait_for(path: Path) -> None:
    for _ in range(1200):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"no {path}")


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_write_one_run_like_that_of_one(tmp_path):
    options = [*TINY, "--total_iterations=2", "--eval_every=1", "--final_eval_tasks=9"]
    job = torchrun(2, *options, f"--run_dir={tmp_path / 'two'}")
    out, error = job.communicate(timeout=300)
    assert job.returncode == 0, error
    assert out.count("  optimum  ") == 4, "one table of four splits"
    one(*options, f"--run_dir={tmp_path / 'one'}")
    names = [
        sorted(path.name for path in (tmp_path / run).rglob("*") if "tfevents" not in path.name)
        for run in ("one", "two")
    ]
    assert names[0] == names[1]
    assert len([*(tmp_path / "two").glob("*tfevents*")]) == 1
    first, its = metrics(tmp_path / "two")[0], metrics(tmp_path / "one")[0]
    for name in (name for name in its if not name.startswith(("time", "seconds"))):
        # The update starts from the same trials; single precision rounds sums of two parts otherwise.
        assert first[name] == pytest.approx(its[name], rel=1e-3, abs=1e-4), name
    both = [AdaptationCurve.load(tmp_path / run / "evaluation" / "test") for run in ("one", "two")]
    assert (both[0].oracle == both[1].oracle).all() and (both[0].random == both[1].random).all(), "the same tasks"
    assert both[0].env_steps.tolist() == both[1].env_steps.tolist()


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the process of a rank in /proc")
def test_a_dead_rank_ends_the_job_and_another_number_of_ranks_goes_on(tmp_path):
    run = tmp_path / "run"
    options = [*TINY, "--eval_every=0", "--final_eval_tasks=0", "--checkpoint_every=5"]
    job = torchrun(2, *options, "--total_iterations=100000", f"--run_dir={run}")
    wait_for(run / "checkpoint.safetensors")
    os.kill(rank_one(job), signal.SIGKILL)
    job.communicate(timeout=300)
    assert job.returncode != 0
    _, done = checkpoint.load_state(run)
    rest = torchrun(3, f"--resume={run}", f"--total_iterations={done.iteration + 2}", "--quiet")
    _, error = rest.communicate(timeout=300)
    assert rest.returncode == 0, error
    assert checkpoint.load_state(run)[1].iteration == done.iteration + 2
    assert [line["iteration"] for line in metrics(run)] == [*range(1, done.iteration + 3)]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the process of a rank in /proc")
def test_torchrun_restarts_a_job_that_resumes_itself(tmp_path):
    run = tmp_path / "run"
    options = [*TINY, "--eval_every=0", "--final_eval_tasks=0", "--checkpoint_every=5", "--auto_resume"]
    job = torchrun(2, *options, "--total_iterations=400", f"--run_dir={run}", restarts=1)
    wait_for(run / "checkpoint.safetensors")
    os.kill(rank_one(job), signal.SIGKILL)
    _, error = job.communicate(timeout=300)
    assert job.returncode == 0, error
    assert [line["iteration"] for line in metrics(run)] == [*range(1, 401)]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["ppo_bernoulli_bandit"], "PPO trains in a single process: start it without torchrun."),
        ([*TINY, "--agent.meta_batch_size=1", "--agent.num_minibatches=1"], "at least the number of processes, 2"),
    ],
)
def test_what_several_processes_cannot_train_is_refused_once(options, sentence, tmp_path):
    job = torchrun(2, *options, f"--run_dir={tmp_path / 'run'}")
    _, error = job.communicate(timeout=300)
    assert job.returncode != 0
    assert error.count(sentence) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_same_number_of_processes_repeats_a_run_bit_for_bit(tmp_path):
    options = [*TINY, "--total_iterations=20", "--eval_every=10", "--final_eval_tasks=0"]
    for run in ("first", "second"):
        job = torchrun(2, *options, f"--run_dir={tmp_path / run}")
        _, error = job.communicate(timeout=300)
        assert job.returncode == 0, error
    states = [checkpoint.load_state(tmp_path / run)[0] for run in ("first", "second")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0].keys() | states[1].keys())


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the process of a rank in /proc")
def test_ctrl_c_reaches_all_ranks_which_save(tmp_path):
    run = tmp_path / "run"
    job = torchrun(
        2, *TINY, "--eval_every=0", "--checkpoint_every=1000000", "--total_iterations=1000000", f"--run_dir={run}"
    )
    wait_for(run / "metrics.jsonl")
    while not metrics(run):
        time.sleep(0.05)
    job.send_signal(signal.SIGINT)
    job.communicate(timeout=300)
    done = checkpoint.load_state(run)[1]
    assert [line["iteration"] for line in metrics(run)] == [*range(1, done.iteration + 1)]
