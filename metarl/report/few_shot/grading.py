"""Answers and targets: replayed trials of a supervised family, with the agent's probabilities."""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.core import rng
from metarl.core.batch_env import Step
from metarl.core.family import Key, Task, TaskFamily
from metarl.core.rollout import Acted, Agent, Memory, Rollout, play_rounds
from metarl.core.tree import num_rows, to_device
from metarl.evaluation.evaluator import EVALUATION, choose_tasks

TRIES = 40
"""Action draws per step, from which the probabilities of the drawn actions are known."""


class Answers(NamedTuple):
    """The answers of one round, `tasks × rows` trials of T steps each."""

    target: NDArray[Any]  # (tasks, rows, T), or (tasks, rows, T, A)
    answer: NDArray[Any]  # likewise
    probabilities: NDArray[np.float64] | None  # (tasks, rows, T, N) of each label; None if not requested

    @property
    def right(self) -> NDArray[np.float64]:
        """Return 1 where the answer is right, else 0: ``(tasks, rows, T)``."""
        return (self.target == self.answer).astype(np.float64)

    @property
    def squared_error(self) -> NDArray[np.float64]:
        """Return the squared error, averaged over the dimensions of an answer: ``(tasks, rows, T)``."""
        return np.square(self.target.astype(np.float64) - self.answer).mean(axis=-1)

    def by_instance(self) -> NDArray[np.float64]:
        """Return the fraction of right answers at the 1st, 2nd, … instance of a class: ``(tasks, instances)``.

        Instances are counted over the whole round. Those that some class has not reached are left out.
        """
        labels = np.unique(self.target)
        mine = self.target[..., None] == labels  # (tasks, rows, T, N)
        number = (mine.cumsum(axis=2) * mine).sum(axis=-1)  # of this instance of its class, from 1 on
        most = int(mine.sum(axis=2).min())
        at = number[..., None] == np.arange(1, most + 1)  # (tasks, rows, T, instances)
        share: NDArray[np.float64] = (at * self.right[..., None]).sum(axis=(1, 2)) / at.sum(axis=(1, 2))
        return share


def answers(
    agent: Agent,
    family: TaskFamily,
    split: str = "test",
    tasks: int = 300,
    seed: int = 0,
    greedy: bool = False,
    probabilities: bool = False,
) -> list[Answers]:
    """Play the trials of an evaluation on its first `tasks` tasks, and return the answers of every round.

    With `probabilities`, also return the label probabilities of the sampling policy, whether `greedy` or not. An agent
    reports only the probability of the action that it draws. So it draws `TRIES` times at every step, and the
    remaining mass is divided among labels that were never drawn. Raises ValueError for a family without right actions.
    """
    grader = Grader(agent, family, greedy, probabilities)
    device = torch.device(getattr(agent, "device", "cpu"))
    root = rng.fold(rng.key(seed, device), EVALUATION)
    task = to_device(choose_tasks(family, root, split, tasks)[0], device)
    protocol, found = agent.protocol.test(), []
    for played, _, _ in play_rounds(
        grader, family, task, rng.fold(root, 1), rounds=protocol.rounds, episodes=protocol.episodes,
        envs_per_task=protocol.envs_per_task, greedy=greedy,
    ):  # fmt: skip
        found.append(_answers(played, num_rows(task), grader.take()))
    return found


def _answers(played: Rollout, tasks: int, probabilities: list[Tensor]) -> Answers:
    by_task = [
        part.transpose(0, 1).unflatten(0, (tasks, -1)).cpu().numpy()
        for part in (played.target, played.acted.action, *([torch.stack(probabilities)] if probabilities else []))
    ]
    return Answers(by_task[0], by_task[1], by_task[2].astype(np.float64) if probabilities else None)


class Grader(Agent):
    """An agent whose rounds hold the right actions, and that records the probability of every label on request."""

    def __init__(self, agent: Agent, family: TaskFamily, greedy: bool, probabilities: bool) -> None:
        self.agent, self.greedy = agent, greedy
        self.protocol = agent.protocol._replace(targets=True)
        space = family.action_space
        self.labels = int(space.n) if probabilities and isinstance(space, gymnasium.spaces.Discrete) else 0
        self._noted: list[Tensor] = []  # (B, N) at every step of the recorded round

    def take(self) -> list[Tensor]:
        """Return the records of this round."""
        noted, self._noted = self._noted, []
        return noted

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        return self.agent.begin(num_tasks, task)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        if self.labels and greedy == self.greedy:
            self._noted.append(self._probabilities(memory, step, key))
        return self.agent.act(memory, step, key, greedy)

    def _probabilities(self, memory: Memory, step: Step, key: Key) -> Tensor:
        """Return the probability of every label, ``(B, N)``. It relies on `act` leaving the memory as it is."""
        found = torch.full((len(key), self.labels), -1.0, device=key.device)
        for number in range(TRIES):
            acted, _ = self.agent.act(memory, step, rng.fold(key, 1 + number))
            found = found.scatter(1, acted.action[:, None], acted.log_prob.exp()[:, None])
        unseen = found < 0.0
        left = (1.0 - found.clamp_min(0.0).sum(1, keepdim=True)).clamp_min(0.0)
        return torch.where(unseen, left / unseen.sum(1, keepdim=True).clamp_min(1), found)

    def adapt(self, memory: Memory, rollout: Rollout) -> Memory:
        return self.agent.adapt(memory, rollout)

    def update(self, trial: list[Rollout], progress: float = 0.0) -> dict[str, float]:
        return self.agent.update(trial, progress)
