"""Trials of a frozen agent, with its memory and the exact belief at some steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from metarl.core import rng
from metarl.core.agent import LearningAgent
from metarl.core.batch_env import Step
from metarl.core.beliefs.belief import Belief, FiniteBelief
from metarl.core.family import Key, Task, TaskFamily
from metarl.core.rollout import Acted, Agent, Memory, Rollout, TrialProtocol, play_rounds
from metarl.core.tree import features, take, to_device

CHUNK_ROWS = 512
"""Most rows that are played at once."""


CHUNK_BELIEFS = 1 << 18
"""Most masses in the finite beliefs of all rows that are played at once."""


MOST_MASSES = 256
"""A finite belief over more tasks than this is decoded by its features instead of its masses."""


class Trials(NamedTuple):
    """R trials, recorded at S steps; values after the end of a trial are zeros."""

    steps: tuple[int, ...]  # (S,) actions taken before each step
    task: NDArray[np.float32]  # (R, D) the numbers of the tasks
    alive: NDArray[np.bool_]  # (S, R) whether the trial lasts until then
    memory: NDArray[np.float32]  # (S, R, F)
    belief: NDArray[np.float32] | None  # (S, R, K) masses or features; None: the family has no belief
    best: NDArray[np.float32] | None  # (S, R, D) the posterior mean of the task's numbers; None: not known
    divergence: NDArray[np.float32] | None  # (S, R) nats between the agent's actions and those of the belief agent


class Watch(NamedTuple):
    """The quantities to record while an agent plays."""

    steps: tuple[int, ...]
    part: str  # of the agent's memory
    belief: Belief | None
    other: LearningAgent | None  # whose actions on the same histories are compared


def has_masses(belief: Belief | None) -> bool:
    """Return whether a belief is decoded as the masses of finitely many tasks, not as features."""
    if not isinstance(belief, FiniteBelief):
        return False
    return belief.size == belief.count <= MOST_MASSES


def play(agent: LearningAgent, family: TaskFamily, task: Task, key: Key, watch: Watch) -> Trials:
    """Play a trial of `agent` on each row of `task`, with sampled actions, and record the quantities of `watch`.

    Row i draws only from `key` and i. The agent does not learn, and does not observe the records.
    """
    rows = len(features(task))
    finite = watch.belief.count if isinstance(watch.belief, FiniteBelief) else 1
    size = max(1, min(CHUNK_ROWS, CHUNK_BELIEFS // finite))
    if family.max_rows is not None:
        size = min(size, family.max_rows)
    alive: list[NDArray[np.bool_]] = []
    noted: list[list[NDArray[np.float32] | None]] = []
    for first in range(0, rows, size):
        part = to_device(take(task, slice(first, first + size)), key.device)
        lasts, found = _play_chunk(agent, family, part, key, watch, first)
        alive.append(lasts)
        noted.append([_stacked(each, lasts) if each else None for each in found])
    memory, *others = (_joined(chunks) for chunks in zip(*noted, strict=True))
    assert memory is not None
    return Trials(watch.steps, features(task).cpu().numpy(), np.concatenate(alive, axis=1), memory, *others)


def _joined(chunks: Sequence[NDArray[np.float32] | None]) -> NDArray[np.float32] | None:
    there = [chunk for chunk in chunks if chunk is not None]
    return np.concatenate(there, axis=1) if there else None


def _play_chunk(
    agent: LearningAgent, family: TaskFamily, task: Task, key: Key, watch: Watch, first: int
) -> tuple[NDArray[np.bool_], Noted]:
    """Return whether each trial lasts until each step, ``(S, B)``, and the records."""
    recorder = Recorder(agent, watch)
    ((played, _, _),) = play_rounds(recorder, family, task, key, rounds=1, first_task=first)
    mask = played.mask.cpu().numpy() > 0.0
    alive = np.zeros((len(watch.steps), mask.shape[1]), dtype=np.bool_)
    for number, step in enumerate(watch.steps):
        if step < len(mask):
            alive[number] = mask[step]
    return alive, recorder.noted


def _stacked(found: Sequence[Tensor], alive: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Stack the records of each step, with zeros at steps that no trial reached and in finished trials."""
    whole = np.zeros((*alive.shape, *found[0].shape[1:]), dtype=np.float32)
    for number, each in enumerate(found):
        whole[number] = each.cpu().numpy()
    whole[~alive] = 0.0
    return whole


class Noted(NamedTuple):
    """Records of a chunk: ``(B, …)`` for each step that was reached."""

    memory: list[Tensor]
    belief: list[Tensor]
    best: list[Tensor]
    divergence: list[Tensor]


class Following(NamedTuple):
    """The memory of a recorder."""

    own: Memory  # of the agent that plays
    belief: Any  # exact, of the same history
    other: Memory  # of the belief agent, on the same history
    time: int  # actions taken


class Recorder(Agent):
    """An agent that plays as `agent` does, and records its memory and the belief of an ideal observer."""

    def __init__(self, agent: LearningAgent, watch: Watch) -> None:
        self.agent, self.watch = agent, watch
        self.protocol = TrialProtocol(episodes=agent.protocol.test().episodes)
        self.noted = Noted([], [], [], [])

    def begin(self, num_tasks: int, task: Task | None = None) -> Following:
        belief, other = self.watch.belief, self.watch.other
        return Following(
            self.agent.begin(num_tasks),
            None if belief is None else belief.prior(num_tasks, self.agent.device),
            None if other is None else other.begin(num_tasks),
            0,
        )

    def act(self, memory: Following, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Following]:
        watch, known, other = self.watch, memory.belief, memory.other
        if watch.belief is not None:
            known = watch.belief.posterior(known, step)
        if memory.time in watch.steps:
            self._note(memory, step, known)
        if watch.other is not None:
            _, other = watch.other.act(other, step, rng.fold(key, 1))
        acted, own = self.agent.act(memory.own, step, key, greedy)
        return acted, Following(own, known, other, memory.time + 1)

    def _note(self, memory: Following, step: Step, known: Any) -> None:
        watch = self.watch
        parts = self.agent.memory_features(memory.own, step)
        assert parts is not None
        self.noted.memory.append(parts[watch.part])
        if watch.belief is not None:
            self.noted.belief.append(numbers(watch.belief, known))
            best = watch.belief.task_mean(known)
            if best is not None:
                self.noted.best.append(best)
        if watch.other is not None:
            mine, theirs = (
                each.action_distribution(at, step)
                for each, at in ((self.agent, memory.own), (watch.other, memory.other))
            )
            assert mine is not None and theirs is not None
            # On the agent's own histories these divergences sum over all steps to the divergence of whole trials.
            divergence: Tensor = mine.kl(theirs)  # type: ignore[arg-type]  # same type, since the spaces are equal
            self.noted.divergence.append(divergence.clamp_min(0.0))

    def adapt(self, memory: Following, rollout: Rollout) -> Following:
        return memory

    def update(self, trial: list[Rollout], progress: float = 0.0) -> dict[str, float]:
        raise TypeError("An agent that is probed does not learn.")


def numbers(belief: Belief, state: Any) -> Tensor:
    """Return the decoding target of a belief, float32 ``(B, K)``: its masses, or its features."""
    if has_masses(belief):
        assert isinstance(belief, FiniteBelief)
        return belief.probs(state)
    return belief.features(state)
