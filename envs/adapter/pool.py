"""A pool of simulators that rows lease and return, in this process or in worker processes.

A simulator is made when none of its kind is idle. It returns to the pool when nothing refers to its `Lease` any
more, and is reused, since some environments take seconds to make. The pool never has more simulators than
were leased at the same time.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import signal
import traceback
import weakref
from collections.abc import Iterable, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from metarl.core.errors import WrongResult
from metarl.envs.adapter.simulator import Kind, Maker, Simulator, Stepped, TaskRow

GOODBYE_SECONDS = 2.0
"""Seconds that a worker has to end after it was asked to; then it is killed."""


class Lease:
    """The right to a simulator, which ends when nothing refers to it."""

    def __init__(self, slot: int, kind: Kind) -> None:
        self.slot = slot
        self.kind = kind
        self.ticks = 0
        """Resets and steps of the simulator under this lease; a state with another number is outdated."""
        self.steps = 0
        """Steps of the current episode."""
        self.over = False
        """True after the episode was terminated, until the next reset."""


class Played(NamedTuple):
    """Results of a reset or step, one row per simulator."""

    obs: np.ndarray  # (n, *O) float32
    reward: np.ndarray  # (n,) float32
    terminated: np.ndarray  # (n,) bool
    truncated: np.ndarray  # (n,) bool
    success: np.ndarray  # (n,) bool
    frames: np.ndarray | None  # (n, height, width, 3) uint8, if pictures are kept


class SimulatorFailed(Exception):
    """A simulator raised an error; `row` is the index among the rows of the call."""

    def __init__(self, row: int, sentence: str, details: str) -> None:
        super().__init__(row, sentence, details)
        self.row, self.sentence, self.details = row, sentence, details


class WorkerDied(RuntimeError):
    """A worker process ended, and with it the episodes of its rows."""


class Bench:
    """The simulators of one process, by slot."""

    def __init__(self, maker: Maker, frames: bool) -> None:
        self.maker, self.frames = maker, frames
        self.simulators: dict[int, Simulator] = {}

    def reset(self, rows: Sequence[tuple[int, Kind, TaskRow, int]]) -> Played:
        """Begin an episode in each slot: (slot, kind, task, seed)."""
        return self._collect([self._reset(number, *row) for number, row in enumerate(rows)], [row[0] for row in rows])

    def _reset(self, number: int, slot: int, kind: Kind, task: TaskRow, seed: int) -> Stepped:
        try:
            if slot not in self.simulators:
                self.simulators[slot] = self.maker(kind)
            return Stepped(self.simulators[slot].reset(task, seed), 0.0, False, False)
        except Exception as error:  # a user's environment may raise any exception
            raise _failed(number, error) from error

    def step(self, slots: Sequence[int], actions: np.ndarray) -> Played:
        """Step the simulator of each slot."""
        results = []
        for number, (slot, action) in enumerate(zip(slots, actions, strict=True)):
            try:
                results.append(self.simulators[slot].step(action))
            except Exception as error:  # a user's environment may raise any exception
                raise _failed(number, error) from error
        return self._collect(results, slots)

    def close(self, slots: Iterable[int]) -> None:
        """Close the simulators of these slots."""
        for slot in slots:
            if (simulator := self.simulators.pop(slot, None)) is not None:
                simulator.close()

    def close_all(self) -> None:
        """Close every simulator."""
        self.close(list(self.simulators))

    def _collect(self, results: Sequence[Stepped], slots: Sequence[int]) -> Played:
        obs, reward, terminated, truncated, success = zip(*results, strict=True)
        frames = np.stack([self.simulators[slot].render() for slot in slots]) if self.frames else None
        return Played(
            np.stack(obs),
            np.array(reward, np.float32),
            np.array(terminated, bool),
            np.array(truncated, bool),
            np.array(success, bool),
            frames,
        )


def _failed(row: int, error: Exception) -> SimulatorFailed:
    if isinstance(error, WrongResult):  # a message of the adapter, which needs no traceback
        return SimulatorFailed(row, error.sentence, "")
    said = " ".join(str(error).split())[:300]
    return SimulatorFailed(row, f"{type(error).__name__}: {said}" if said else type(error).__name__, _details(error))


def _details(error: Exception) -> str:
    return "".join(traceback.format_exception(error))


class Pool:
    """Simulators made by `maker` in `workers` processes, or in this one if there are none.

    With `frames` every reset and step also draws a picture.
    """

    def __init__(self, maker: Maker, workers: int = 0, frames: bool = False) -> None:
        self._benches: list[Bench | Worker]
        if workers:
            context = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks of torch
            self._benches = [Worker(context, maker, frames) for _ in range(workers)]
        else:
            self._benches = [Bench(maker, frames)]
        self._slots = itertools.count()
        self._idle: dict[Kind, list[int]] = {}
        self._leased = self._most = 0
        self._finalizer = weakref.finalize(self, _close_all, self._benches)

    def __len__(self) -> int:
        """Return the number of simulators, including idle ones."""
        return self._leased + sum(map(len, self._idle.values()))

    def lease(self, kind: Kind) -> Lease:
        """Lease an idle simulator of this kind, or a slot for a new one."""
        idle = self._idle.get(kind)
        slot = idle.pop() if idle else next(self._slots)
        self._leased += 1
        self._most = max(self._most, self._leased)
        lease = Lease(slot, kind)
        weakref.finalize(lease, _give_back, weakref.ref(self), slot, kind).atexit = False
        if len(self) > self._most:
            self._trim()
        return lease

    def reset(self, leases: Sequence[Lease], tasks: Sequence[TaskRow], seeds: Sequence[int]) -> Played:
        """Begin an episode of each row. Raises SimulatorFailed and WorkerDied."""
        parts = self._parts(leases)
        messages = [
            ("reset", ([(leases[i].slot, leases[i].kind, tasks[i], seeds[i]) for i in rows],)) for rows in parts
        ]
        played = self._ask(leases, parts, messages)
        for lease in leases:
            lease.steps, lease.over = 0, False
        return played

    def step(self, leases: Sequence[Lease], actions: np.ndarray) -> Played:
        """Step each row. Raises SimulatorFailed and WorkerDied."""
        parts = self._parts(leases)
        messages = [("step", ([leases[i].slot for i in rows], actions[rows])) for rows in parts]
        return self._ask(leases, parts, messages)

    def close(self) -> None:
        """Close every simulator and end the workers."""
        self._finalizer()

    def _parts(self, leases: Sequence[Lease]) -> list[list[int]]:
        """Group the rows by process."""
        parts: list[list[int]] = [[] for _ in self._benches]
        for row, lease in enumerate(leases):
            parts[lease.slot % len(parts)].append(row)
        return parts

    def _ask(self, leases: Sequence[Lease], parts: list[list[int]], messages: list[Any]) -> Played:
        """Run the parts of all processes concurrently, and return the results in the order of the rows."""
        if len(self._benches) == 1 and isinstance(bench := self._benches[0], Bench):
            played: Played = getattr(bench, messages[0][0])(*messages[0][1])
        else:
            played = self._ask_workers(parts, messages)
        for lease in leases:
            lease.ticks += 1
            lease.steps += 1
        return played

    def _ask_workers(self, parts: list[list[int]], messages: list[Any]) -> Played:
        busy = [number for number, rows in enumerate(parts) if rows]
        workers = [bench for bench in self._benches if isinstance(bench, Worker)]
        for number in busy:
            workers[number].send(*messages[number])
        answers, failed = [], None
        for number in busy:  # read every answer, so that no old one is mistaken for a new one
            try:
                answers.append(workers[number].receive())
            except SimulatorFailed as error:
                failed = failed or SimulatorFailed(parts[number][error.row], error.sentence, error.details)
        if failed is not None:
            raise failed
        order = np.argsort(list(itertools.chain(*parts)), kind="stable")
        columns = zip(*answers, strict=True)
        return Played(*(None if column[0] is None else np.concatenate(column)[order] for column in columns))  # type: ignore[arg-type]

    def _trim(self) -> None:
        """Close surplus idle simulators."""
        for kind, idle in list(self._idle.items()):
            while idle and len(self) > self._most:
                slot = idle.pop(0)
                self._benches[slot % len(self._benches)].close([slot])
            if not idle:
                del self._idle[kind]

    def _given_back(self, slot: int, kind: Kind) -> None:
        self._leased -= 1
        self._idle.setdefault(kind, []).append(slot)


def _give_back(pool: weakref.ref[Pool], slot: int, kind: Kind) -> None:
    alive = pool()
    if alive is not None:
        alive._given_back(slot, kind)


def _close_all(benches: Sequence[Bench | Worker]) -> None:
    for bench in benches:
        bench.close_all()


class Worker:
    """A process with a `Bench`, which executes each message it receives and answers it once."""

    def __init__(self, context: Any, maker: Maker, frames: bool) -> None:
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_work, args=(other, maker, frames), daemon=True)
        self._process.start()
        other.close()

    def send(self, method: str, arguments: tuple[Any, ...]) -> None:
        """Send a message. Raises WorkerDied."""
        try:
            self._pipe.send((method, arguments))
        except (BrokenPipeError, ConnectionError) as error:
            raise self._died() from error

    def receive(self) -> Any:
        """Wait for the answer to the last message. Raises SimulatorFailed and WorkerDied."""
        try:
            answer = self._pipe.recv()
        except (EOFError, ConnectionError) as error:
            raise self._died() from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self, slots: Iterable[int]) -> None:
        """Close the simulators of these slots."""
        self.send("close", (list(slots),))
        self.receive()

    def close_all(self) -> None:
        """Let the process close its simulators and end."""
        with contextlib.suppress(OSError, ValueError):  # it has already ended
            self._pipe.send(None)
        self._process.join(GOODBYE_SECONDS)
        if self._process.is_alive():
            self._process.kill()
        self._pipe.close()

    def _died(self) -> WorkerDied:
        self._process.join(GOODBYE_SECONDS)
        code = self._process.exitcode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        return WorkerDied(f"A worker process that steps simulators {how}, and the episodes that it played are lost.")


def _work(pipe: Connection, maker: Maker, frames: bool) -> None:
    """Execute the messages from a pipe until None arrives or the other process ends."""
    # A stop signal reaches the whole process group. Ignore it: the parent decides, and closes the pipe when it ends.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    bench = Bench(maker, frames)
    try:
        while (message := pipe.recv()) is not None:
            method, arguments = message
            try:
                pipe.send(getattr(bench, method)(*arguments))
            except SimulatorFailed as failed:
                pipe.send(failed)
    except (EOFError, BrokenPipeError):
        pass  # the process that asked has ended
    finally:
        bench.close_all()
