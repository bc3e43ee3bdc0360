"""Several processes together learn what one learns: the same trials, sums over all of them, equal parameters."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any

import pytest
import together
import torch

from metarl.core.tree import leaves
from metarl.learning import ranks


def launch(world_size: int, *command: str) -> None:
    """Run a command once for each rank, with what torchrun would tell it; all of them must succeed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world_size)}
    place |= {"OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world_size)
    ]
    errors = [process.communicate(timeout=300)[1] for process in running]
    assert [process.returncode for process in running] == [0] * world_size, errors


@pytest.fixture(scope="module")
def one() -> dict[str, Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {name: together.learn(*agent) for name, agent in together.AGENTS.items()}
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)])
def several(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    out = tmp_path_factory.mktemp("ranks")
    launch(request.param, together.__file__, str(out))
    return [torch.load(out / f"{rank}.pt") for rank in range(request.param)]


@pytest.mark.parametrize("name", together.AGENTS)
def test_several_processes_learn_what_one_learns(name, one, several):
    """In double precision, after three iterations; TASKS tasks are no multiple of the processes."""
    alone = one[name]
    for found in (rank[name] for rank in several):
        assert found["state"].keys() == alone["state"].keys()
        for key, value in alone["state"].items():
            torch.testing.assert_close(
                found["state"][key], value, rtol=1e-6, atol=1e-9, msg=lambda m, key=key: f"{key}: {m}"
            )
        for mine, its in zip(found["metrics"], alone["metrics"], strict=True):
            assert mine == pytest.approx(its, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("name", together.AGENTS)
def test_all_ranks_have_the_same_parameters_bit_for_bit(name, several):
    first, *others = (rank[name]["state"] for rank in several)
    assert all(torch.equal(state[key], first[key]) for state in others for key in first)


@pytest.mark.parametrize("name", together.AGENTS)
def test_the_ranks_play_the_trials_that_one_process_plays(name, one, several):
    """The first trial, before anything was learned, bit for bit: rewards of the rows of all ranks one after another."""
    ways = [leaves(found[name]["rewards"][0]) for found in (*several, one)]
    for *parts, whole in zip(*ways, strict=True):
        longest = max(len(part) for part in parts)
        padded = [torch.cat([part, torch.zeros(longest - len(part), part.shape[1])]) for part in parts]
        assert torch.equal(torch.cat(padded, dim=1), whole)


def test_in_a_single_process_everything_is_what_it_was():
    x, weight = torch.randn(3), torch.randn(3, requires_grad=True)
    weight.grad = x.clone()
    assert ranks.total(x) is x and ranks.mean(x, 5) is x and ranks.sum_gradients([weight], x) is x
    assert ranks.moments(x, x, 2) == (x, x) and ranks.all_gather("a") == ["a"] and ranks.on_rank_zero(lambda: 4) == 4
    assert torch.equal(weight.grad, x) and ranks.part(7) == slice(0, 7) and ranks.shard(7) == (0, 7)
    assert not ranks.is_distributed() and ranks.any_of(True) and not ranks.any_of(False)


@pytest.mark.parametrize("own", [{"WORLD_SIZE": "4"}, {"RANK": "3"}, {"RANK": "captain", "WORLD_SIZE": "two"}])
def test_without_torchrun_nothing_starts(own, monkeypatch):
    """Other programs use such names, too."""
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    ranks.start(torch.device("cpu"))
    assert not ranks.is_distributed() and ranks.torchrun_rank() == (0, 1)
