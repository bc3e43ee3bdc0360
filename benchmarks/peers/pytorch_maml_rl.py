"""MAML with TRPO by tristandeleu/pytorch-maml-rl: its environment, policy, sampling processes and meta-learner.

That project is no package. Clone https://github.com/tristandeleu/pytorch-maml-rl (MIT licence), name the checkout in
the environment variable PYTORCH_MAML_RL, and give the peers' interpreter, which has torch and NumPy, the Gym of its
days: ``pip install --no-deps gym==0.17.3``. Nothing of it needs editing: two names that it uses and that PyTorch and
NumPy have removed since are put back here. The settings are those of its configs/maml/2d-navigation.yaml, which W3
shares.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from multiprocessing import connection
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.works import Work

VARIABLE = "PYTORCH_MAML_RL"
ENV = "2DNavigation-v0"


def checkout() -> str:
    """The folder that the variable names. Raises ImportError if it cannot be."""
    path = os.environ.get(VARIABLE)
    if not path:
        raise ImportError(f"{VARIABLE} must be the path of a checkout of tristandeleu/pytorch-maml-rl.")
    if not (Path(path) / "maml_rl").is_dir():
        raise ImportError(f"{VARIABLE} must be a folder that contains maml_rl, got {path}.")
    return path


sys.path.append(checkout())

import gym  # noqa: E402
import maml_rl.envs  # noqa: E402, F401  (registers them)
from maml_rl.baseline import LinearFeatureBaseline  # noqa: E402
from maml_rl.metalearners import MAMLTRPO  # noqa: E402
from maml_rl.samplers import MultiTaskSampler  # noqa: E402
from maml_rl.utils.helpers import get_input_size, get_policy_for_env  # noqa: E402


def build(work: Work, threads: int) -> Callable[[], int]:
    """A function that runs one iteration of its training loop and returns its steps, without padding."""
    put_back()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # of each worker, which begins as a copy of this process
    gym.spec(ENV).max_episode_steps = work.horizon
    env = gym.make(ENV)
    policy = get_policy_for_env(env, hidden_sizes=(work.hidden, work.hidden), nonlinearity="tanh")
    policy.share_memory()
    sampler = MultiTaskSampler(
        ENV,
        env_kwargs={},
        batch_size=work.trajectories,
        policy=policy,
        baseline=LinearFeatureBaseline(get_input_size(env)),
        env=env,
        seed=0,
        num_workers=threads,
    )
    watch(sampler.workers)
    atexit.register(sampler.close)
    torch.set_num_threads(threads)
    learner = MAMLTRPO(policy, fast_lr=0.1)

    def call() -> int:
        tasks = sampler.sample_tasks(work.rows)
        futures = sampler.sample_async(tasks, num_steps=1, fast_lr=0.1, gamma=0.99, gae_lambda=1.0, device="cpu")
        learner.step(*futures, max_kl=0.01, cg_iters=10, cg_damping=1e-5, ls_max_steps=15, ls_backtrack_ratio=0.8)
        before, after = sampler.sample_wait(futures)
        return sum(sum(episodes.lengths) for episodes in [*before[0], *after])

    return call


def put_back() -> None:
    """What PyTorch 1.13 and NumPy 2 removed: the least-squares solver of its baseline, and a name for a data type."""

    def lstsq(b: Tensor, a: Tensor) -> tuple[Tensor, None]:
        return torch.linalg.lstsq(a, b, driver="gels").solution, None

    torch.lstsq = lstsq
    np.float_ = np.float64


def watch(workers: list[Any]) -> None:
    """End this process if a worker fails: the learner would wait for its episodes forever."""

    def wait() -> None:
        ended = connection.wait([worker.sentinel for worker in workers])
        for worker in workers:
            if worker.sentinel in ended:
                worker.join()
        if any(worker.exitcode for worker in workers):
            for worker in workers:
                worker.terminate()
            print("a worker of pytorch-maml-rl's sampler died; its output is above.", file=sys.stderr, flush=True)
            os._exit(1)

    Thread(target=wait, daemon=True).start()
