"""Families whose rows are played by simulators, one for each row."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.errors import WrongResult, truth, whole_number
from metarl.core.family import Key, Redrawn, Sketch, TaskFamily, TaskT
from metarl.core.faults.results import shown_task
from metarl.core.tree import Column, named_leaves, num_rows, put
from metarl.envs.adapter.pool import Lease, Played, Pool, SimulatorFailed, WorkerDied
from metarl.envs.adapter.simulator import Kind, Maker, TaskRow

DRAWABLE = "family.drawable(), or make the family with frames=True"


class Simulated(NamedTuple):
    """The state of rows played by simulators. It can be stepped only once, since a step advances its simulators."""

    simulator: Column  # of `Lease`
    tick: Tensor  # (B,) int64: resets and steps of the simulator until this state
    obs: Tensor  # (B, *O) float32
    success: Tensor  # (B,) bool
    frame: Tensor  # (B, height, width, 3) uint8; without `frames` (B, 0)


class SimulatorFamily(TaskFamily[TaskT, Simulated]):
    """A family that plays each row in a simulator of its own, in this process or in `workers` processes.

    A subclass sets the spaces, `horizon` and its tasks as any family, and may override `kind`. `maker` makes a
    simulator of a kind. `renders` says whether simulators draw.

    **What is not promised.** A state is opaque: it can be stepped once, and a former state cannot be gone back to, so a
    trial can be watched but not played again from its middle, and nothing is recorded for a GPU. A row of a batch
    equals a batch of one, and the same seed gives the same episode, as far as the environment draws only from the
    generator that ``reset(seed=…)`` seeds.

    A simulator is kept as long as a state names it, and then plays other rows. An evaluation plays at most `max_rows`
    rows at once. With `early_ends` a truncation by the simulator before the horizon counts as the task's own ending;
    without, it is an error. With `frames` every state holds a picture, which costs a rendering per step; without it
    there are no pictures. `close` closes the simulators; the end of the family does so, too.
    """

    opaque: ClassVar[bool] = True
    terminates: ClassVar[bool] = True
    noisy: ClassVar[bool] = False
    renders: bool = True

    def __init__(
        self, maker: Maker, workers: int = 0, max_rows: int = 64, frames: bool = False, early_ends: bool = False
    ) -> None:
        self.maker = maker
        self.max_rows = whole_number("max_rows", max_rows)
        # With a leading _, since they do not change episodes: curves record only attributes that do.
        self._workers = whole_number("workers", workers, 0)
        self._frames, self._early_ends = truth("frames", frames), truth("early_ends", early_ends)
        self._pool: Pool | None = None

    def kind(self, task: TaskRow) -> Kind:
        """Return the options to make a simulator for this row's task; None (the same for all) unless overridden."""
        return None

    @property
    def simulators(self) -> int:
        """The number of open simulators, including idle ones."""
        return 0 if self._pool is None else len(self._pool)

    def close(self) -> None:
        """Close all simulators and end the worker processes. Existing states can no longer be stepped."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def reset(self, task: TaskT, key: Key) -> Simulated:
        pool, rows = self._open(), rows_of(task)
        return self._start(task, rows, [pool.lease(self.kind(row)) for row in rows], key)

    def restart(self, task: TaskT, state: Simulated, key: Key) -> Simulated:
        pool, rows, kept = self._open(), rows_of(task), []
        for row, lease in zip(rows, state.simulator, strict=True):
            kind = self.kind(row)
            kept.append(lease if lease.kind == kind else pool.lease(kind))
        return self._start(task, rows, kept, key)

    def observe(self, task: TaskT, state: Simulated) -> Tensor:
        return state.obs

    def step(self, task: TaskT, state: Simulated, action: Tensor, key: Key) -> tuple[Simulated, Tensor, Tensor]:
        """Step as `TaskFamily.step`. A terminated row keeps its state, with reward 0."""
        leases: Sequence[Lease] = state.simulator.items
        self._check_current(state)
        reward, terminated = torch.zeros(len(leases)), torch.tensor([lease.over for lease in leases], dtype=torch.bool)
        rows = (~terminated).nonzero().squeeze(-1)
        if not len(rows):
            return state, reward.to(action.device), terminated.to(action.device)
        playing = [leases[row] for row in rows.tolist()]
        with self._explained(task, "step", rows):
            played = self._open().step(playing, action.detach().cpu().numpy()[rows.numpy()])
        ended = self._endings(playing, played)
        for lease, over in zip(playing, ended.tolist(), strict=True):
            lease.over = over
        after = put(state, rows.to(action.device), self._state(playing, played, action.device))
        reward, terminated = (
            reward.index_copy(0, rows, torch.from_numpy(played.reward)),
            terminated.index_copy(0, rows, torch.from_numpy(ended)),
        )
        return after, reward.to(action.device), terminated.to(action.device)

    def success(self, task: TaskT, state: Simulated) -> Tensor | None:
        return state.success

    @property
    def no_picture(self) -> str:
        return "" if self.renders else "its simulators draw none."

    def drawable(self) -> Self:
        """Return a copy with its own simulators, whose states each hold a picture."""
        if self._frames:
            return self
        twin = copy.copy(self)
        twin._frames = True
        return twin

    def sketch(self, task: TaskT, episodes: int = 1) -> Sketch[Simulated]:
        return LastFrame(functools.partial(self.render, task))

    def render(self, task: TaskT, states: list[Simulated]) -> np.ndarray:
        """Return the picture of the last state. Raises NotImplementedError if it holds none."""
        frame = states[-1].frame
        if frame.ndim < 4:
            raise NotImplementedError(f"This state of {type(self).__name__} has no picture: play {DRAWABLE}.")
        return frame[0].cpu().numpy()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pool": None}  # a copy makes its own simulators

    def _open(self) -> Pool:
        if self._pool is None:
            self._pool = Pool(self.maker, self._workers, self._frames)
        return self._pool

    def _start(self, task: TaskT, rows: Sequence[TaskRow], leases: Sequence[Lease], key: Key) -> Simulated:
        seeds = (rng.fold(key, 0) & 0x7FFFFFFF).tolist()
        with self._explained(task, "reset"):
            played = self._open().reset(leases, rows, seeds)
        return self._state(leases, played, key.device)

    def _state(self, leases: Sequence[Lease], played: Played, device: torch.device) -> Simulated:
        frames = np.empty((len(leases), 0), np.uint8) if played.frames is None else played.frames
        ticks = torch.tensor([lease.ticks for lease in leases], device=device)
        tensors = (torch.from_numpy(x).to(device) for x in (played.obs, played.success, frames))
        return Simulated(Column(leases), ticks, *tensors)

    def _check_current(self, state: Simulated) -> None:
        """Raise WrongResult for an outdated state, whose simulator was stepped or reset since."""
        now = [lease.ticks for lease in state.simulator]
        if state.tick.tolist() != now:
            raise WrongResult(
                f"A state of {type(self).__name__} can be stepped only once, since its simulator moves on; this state "
                "was stepped before"
            )

    def _endings(self, leases: Sequence[Lease], played: Played) -> np.ndarray:
        """Return which rows were terminated. Raises WrongResult for a simulator that truncates before the horizon."""
        early = played.truncated & ~played.terminated & (np.array([x.steps for x in leases]) < self.horizon)
        if early.any() and not self._early_ends:
            steps, name = leases[int(early.argmax())].steps, type(self).__name__
            raise WrongResult(
                f"The simulator truncated an episode after {steps} steps, before the horizon of {self.horizon}: give "
                f"{name} a horizon of at most that, or early_ends=True if this is an ending of the task"
            )
        return played.terminated | early

    @contextlib.contextmanager
    def _explained(self, task: TaskT, method: str, rows: Tensor | None = None) -> Iterator[None]:
        """Convert a simulator's error into one sentence that names the method, the row and its task.

        `rows` are the numbers of the rows that are played, by default all.
        """
        try:
            yield
        except SimulatorFailed as error:
            row = error.row if rows is None else int(rows[error.row])
            where = f"row {row} of {num_rows(task)}: {shown_task(task, row)}"
            wrong = WrongResult(f"{type(self).__name__}.{method} failed in {where}: {error.sentence}")
            if error.details:
                wrong.add_note(error.details)
            raise wrong from None
        except WorkerDied as error:
            self._pool = None  # the next reset starts workers anew
            raise WrongResult(str(error)) from None


class LastFrame(Redrawn[Simulated]):
    """A sketch of the last state only, since a simulator renders one moment."""

    def add(self, state: Simulated, first: bool = False) -> None:
        self.states = [state]


def rows_of(task: Any) -> list[dict[str, np.ndarray]]:
    """Return the rows of a task, each as a dict of its fields in NumPy."""
    fields = {name: leaf.detach().cpu().numpy() for name, leaf in named_leaves(task).items()}
    return [{name: values[row] for name, values in fields.items()} for row in range(num_rows(task))]
