"""Replay of an evaluation, to obtain its states.

`watch` evaluates and records the actions. A row of a batch equals a batch of one bit for bit, and randomness is
addressed, so replaying these actions on the same task with the same keys reproduces the trial without the agent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.batch_env import BatchEnv, Step, make_env
from metarl.core.family import Key, State, Task, TaskFamily
from metarl.core.rollout import Acted, Agent, Embedder, Memory, Rollout
from metarl.core.tree import concatenate, num_rows, take, to_device
from metarl.evaluation.arguments import as_greedy
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.evaluator import EVALUATION, evaluate, training_of
from metarl.learning import ranks

MAX_PULLS = 20
"""Number of rows per task that are watched if each row is a single step."""


class Watched(Agent):
    """An agent whose actions are recorded as it plays: those of the first `rows` rows of every trial, in every round.

    If the agent has task embeddings, they are recorded, too. Only the first of a task's `repeats` trials is shown. With
    `greedy`, the sampled rounds that are played only for `adapt` are not recorded.
    """

    def __init__(self, agent: Agent, rows: int = 1, greedy: bool = False) -> None:
        self.agent, self.protocol, self.rows, self.greedy = agent, agent.protocol, rows, greedy
        self.repeats = 1  # known once it has played
        self.device = torch.device(getattr(agent, "device", "cpu"))
        self.step_name, self.costly = agent.step_name, agent.costly
        self._tasks: list[Task] = []  # one entry per chunk of the evaluation
        self._actions: list[list[list[Tensor]]] = []  # [chunk][round][step] (N, rows, …)
        self._embeddings: list[Tensor] = []  # [chunk] (N, Z) after the last `adapt`

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        self._tasks.append(task)
        self._actions.append([[]])
        return self.agent.begin(num_tasks, task)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        acted, memory = self.agent.act(memory, step, key, greedy)
        if greedy != self.greedy:
            return acted, memory
        by_task = acted.action.reshape(num_rows(self._tasks[-1]), -1, *acted.action.shape[1:])
        self._actions[-1][-1].append(by_task[:, : self.rows].clone())
        return acted, memory

    def adapt(self, memory: Memory, rollout: Rollout) -> Memory:
        self._actions[-1].append([])
        memory = self.agent.adapt(memory, rollout)
        if isinstance(self.agent, Embedder):
            self._embeddings[len(self._actions) - 1 :] = [self.agent.task_embedding(memory).clone()]
        return memory

    def update(self, trial: list[Rollout], progress: float = 0.0) -> dict[str, float]:
        return self.agent.update(trial, progress)

    def join(self) -> None:
        """Join the records of all ranks, whose tasks are concatenated."""
        if ranks.is_distributed():
            every = ranks.all_gather(to_device((self._tasks, self._actions, self._embeddings), "cpu"))
            self._tasks, self._actions, self._embeddings = (
                [to_device(chunk, self.device) for chunks in noted for chunk in chunks]
                for noted in zip(*every, strict=True)
            )

    @property
    def task(self) -> Task:
        """All tasks that were played, in order."""
        every = concatenate(self._tasks)
        return every if self.repeats == 1 else take(every, slice(0, None, self.repeats))

    @property
    def embedding(self) -> Tensor | None:
        """The agent's embedding of each task in the last round, ``(tasks, Z)``; None if it has none."""
        return torch.cat(self._embeddings)[:: self.repeats] if self._embeddings else None

    def actions(self, number: int, row: int = 0) -> list[list[Tensor]]:
        """Return the actions of a row of task `number` by [round][step], ``(1, …)``. ValueError: it was not played."""
        first, trial = 0, number * self.repeats
        for task, rounds in zip(self._tasks, self._actions, strict=True):
            if first <= trial < first + num_rows(task):
                return [[action[trial - first, row : row + 1] for action in steps] for steps in rounds]
            first += num_rows(task)
        raise ValueError(f"number must be from 0 to {first // self.repeats - 1}, got {number}.")

    def all_actions(self) -> list[Tensor]:
        """Return the actions of each round, ``(tasks, rows, steps, …)``; all tasks must take equally many steps."""
        rounds = zip(*self._actions, strict=True)
        return [torch.cat([torch.stack(steps, dim=2) for steps in chunks])[:: self.repeats] for chunks in rounds]


def watch(
    agent: Agent,
    family: TaskFamily,
    split: str,
    tasks: int,
    seed: int = 0,
    greedy: bool | None = None,
    repeats: int | None = None,
) -> tuple[AdaptationCurve, Watched]:
    """Evaluate like `metarl.evaluate`, and record the actions.

    Only the first of the rows that play a task in parallel is watched, or several if a row is a single bandit step.
    """
    greedy = as_greedy(agent, greedy)
    watched = Watched(agent, rows=MAX_PULLS if family.horizon == 1 else 1, greedy=greedy)
    curve = evaluate(watched, family, split, tasks, repeats, seed=seed, greedy=greedy)
    watched.join()
    watched.repeats = curve.repeats
    title = getattr(agent, "title", type(agent).__name__)
    return replace(curve, agent=title, training=training_of(agent)), watched


class Episode(NamedTuple):
    """One episode of one row."""

    states: list[State]  # the first state, and the state after each step
    rewards: list[float]


def replay(watched: Watched, family: TaskFamily, number: int, row: int = 0, seed: int = 0) -> list[list[Episode]]:
    """Replay the trial of a row of task `number` in the evaluation with this `seed`: [round][episode]."""
    trial, family = [], family.drawable()
    for index, actions in enumerate(watched.actions(number, row)):
        env = env_again(watched, family, number, row, seed, index)
        env.reset()
        trial.append(_play(env, actions))
    return trial


def env_again(
    watched: Watched, family: TaskFamily, number: int, row: int = 0, seed: int = 0, index: int = 0
) -> BatchEnv:
    """Remake the environment of one row of task `number` in round `index` of the evaluation."""
    protocol = watched.protocol.test()
    key = rng.fold(rng.fold(rng.key(seed, watched.device), EVALUATION), 1)
    first_row = number * watched.repeats * protocol.envs_per_task + row
    task = take(watched.task, slice(number, number + 1))
    return make_env(family, task, rng.fold(rng.fold(key, index), 0), protocol.episodes, first_row)


def _play(env: BatchEnv, actions: Sequence[Tensor]) -> list[Episode]:
    """Play one round of one row; the actions continue beyond its end if other rows took longer."""
    episodes = [Episode([env.state], [])]
    for action in actions:
        outcome, step = env.step(action)
        episodes[-1].states.append(env.final_state)
        episodes[-1].rewards.append(float(outcome.reward))
        if not env.alive:
            break
        if step.prev_done:
            episodes.append(Episode([env.state], []))
    return episodes
