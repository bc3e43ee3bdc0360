"""Data-parallel training: several processes train one agent; each plays its own rows, and results are summed.

``torchrun`` starts the processes and gives each a number, its *rank*; `start` connects them with `torch.distributed`.
Randomness is addressed by rows, so the ranks together play exactly the trials that a single process would play. What an
agent computes from the whole meta-batch (gradients, moments, Fisher products) is summed over the ranks, so that all
ranks take the same step.

In a single process every function here returns its argument. With several processes, all ranks must call the same
functions in the same order. Statistics are summed in double precision.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

FROM_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""The environment variables in which torchrun passes a process its rank."""


def torchrun_rank() -> tuple[int, int]:
    """Return the rank that torchrun gave this process, and the number of processes; (0, 1) without torchrun."""
    told = [os.environ.get(name, "") for name in FROM_TORCHRUN]
    if not all(told) or not all(number.isdecimal() for number in told[:3]):  # another program may use such names
        return 0, 1
    return int(told[0]), int(told[2])


class LostRank(RuntimeError):
    """The error if another process has died or left; the message is for the user."""


class _Place:
    """The rank of this process and the number of processes; a single process until `start`."""

    rank, world_size = 0, 1


class Shard(NamedTuple):
    """The rows of this rank among those of all ranks."""

    first: int  # the index of its first row
    every: int  # total rows of all ranks

    def own(self, rows: Tensor, count: int) -> Tensor:
        """Return the rows of `rows` (global indices) that are among this rank's `count` rows, as local indices."""
        if count == self.every:
            return rows
        rows = rows - self.first
        return rows[(rows >= 0) & (rows < count)]


def start(device: torch.device) -> None:
    """Connect this process to the others that torchrun started; without torchrun, do nothing.

    Tensors on a GPU are sent with NCCL, others with gloo. Each process of a machine uses its own GPU.
    """
    if torchrun_rank()[1] == 1 or is_distributed():
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    if not dist.is_initialized():
        with _talking():
            dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    _Place.rank, _Place.world_size = dist.get_rank(), dist.get_world_size()
    atexit.register(stop)


def stop() -> None:
    """Disconnect from the other processes."""
    if is_distributed():
        _Place.rank, _Place.world_size = 0, 1
        dist.destroy_process_group()


def rank() -> int:
    """Return the rank of this process, from 0. Only rank 0 writes and prints."""
    return _Place.rank


def world_size() -> int:
    """Return the number of processes."""
    return _Place.world_size


def is_distributed() -> bool:
    """Return True if there are other processes."""
    return _Place.world_size > 1


@contextmanager
def _talking() -> Iterator[None]:
    """Convert an error in communication with the other processes to LostRank."""
    try:
        yield
    except RuntimeError as error:
        raise LostRank(
            f"Rank {torchrun_rank()[0]} has no connection to another process, which has probably ended: see its "
            "message."
        ) from error


@contextmanager
def single_process() -> Iterator[None]:
    """Make this process act like a single one in the block, for work that ranks do not share, such as plotting."""
    before = _Place.rank, _Place.world_size
    _Place.rank, _Place.world_size = 0, 1
    try:
        yield
    finally:
        _Place.rank, _Place.world_size = before


def part(rows: int) -> slice:
    """Return this rank's part of `rows` rows; the parts of the ranks differ by at most one row."""
    return slice(_Place.rank * rows // _Place.world_size, (_Place.rank + 1) * rows // _Place.world_size)


def shard(rows: int) -> Shard:
    """Return the position of this rank's `rows` rows among those of all ranks."""
    counts = torch.zeros(_Place.world_size, dtype=torch.int64)
    counts[_Place.rank] = rows
    counts = total(counts)
    return Shard(int(counts[: _Place.rank].sum()), int(counts.sum()))


def total(x: Tensor) -> Tensor:
    """Return the sum of `x` over the ranks."""
    if not is_distributed():
        return x
    x = x.detach().clone()
    with _talking():
        dist.all_reduce(x)
    return x


def mean(x: Tensor, weight: Tensor | float) -> Tensor:
    """Return the mean of `x` over the ranks, weighted by each rank's `weight`, such as its number of entries."""
    if not is_distributed():
        return x
    share = torch.as_tensor(weight, dtype=torch.float64, device=x.device)
    # Ignore ranks with weight 0: the mean of no entries may be NaN.
    weighted = torch.where(share > 0.0, x.detach().to(torch.float64).reshape(-1) * share, 0.0)
    sums = total(torch.cat([weighted, share.reshape(1)]))
    return (sums[:-1] / sums[-1].clamp_min(torch.finfo(torch.float64).tiny)).to(x.dtype).reshape(x.shape)


def moments(mean_: Tensor, std: Tensor, count: float) -> tuple[Tensor, Tensor]:
    """Return mean and std of the pooled samples of all ranks, given those of this rank's `count` samples.

    Unlike the average of the standard deviations, the result accounts for the distance of the means (Chan et al. 1979).
    """
    if not is_distributed():
        return mean_, std
    middle = mean(mean_, count)
    return middle, mean(std**2 + (mean_ - middle) ** 2, count).sqrt()


@torch.no_grad()
def sum_gradients(parameters: Iterable[Tensor], metrics: Tensor) -> Tensor:
    """Sum all gradients and `metrics` over the ranks in one all-reduce; return the sum of `metrics`."""
    if not is_distributed():
        return metrics
    parameters = list(parameters)
    given = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = total(torch.cat([*(gradient.reshape(-1) for gradient in given), metrics.reshape(-1)]))
    *sums, found = torch.split(flat, [tensor.numel() for tensor in (*given, metrics)])
    for parameter, summed in zip(parameters, sums, strict=True):
        parameter.grad = summed.reshape(parameter.shape)
    return found.reshape(metrics.shape)


def any_of(flag: bool) -> bool:
    """Return True if `flag` is true on any rank."""
    return bool(total(torch.tensor(flag, dtype=torch.int64)))


def all_gather(value: T) -> list[T]:
    """Return the `value` of every rank, in order."""
    if not is_distributed():
        return [value]
    found: list[Any] = [None] * world_size()
    with _talking():
        dist.all_gather_object(found, value)
    return found


def on_rank_zero(function: Callable[[], T]) -> T:
    """Call `function` on rank 0 and return its result on every rank. Its ValueErrors are raised on every rank."""
    if not is_distributed():
        return function()
    answer: list[Any] = [None, None]
    if rank() == 0:
        try:
            answer[0] = function()
        except ValueError as error:
            answer[1] = error
    with _talking():
        dist.broadcast_object_list(answer, src=0)
    value, problem = answer
    if problem is not None:
        raise problem
    found: T = value
    return found
