"""Measures besides the return: accuracy, precision, recall, F1 and cross-entropy, or errors."""

from __future__ import annotations

from typing import Any

import numpy as np

from metarl.agents.family_extras import register_measures
from metarl.core.family import TaskFamily
from metarl.core.rollout import Agent
from metarl.envs.supervised.digits import FewShotDigits
from metarl.envs.supervised.sinusoid import Sinusoid
from metarl.report.few_shot.grading import Answers, answers

MOST_TASKS = 500
"""Most tasks that are played for measures."""


def classification(round_: Answers) -> dict[str, float]:
    """Return accuracy, macro precision, recall and F1, and the cross-entropy in nats, by scikit-learn.

    Labels are pooled over tasks. They are permuted in every trial, so all of them are equally hard.
    """
    from sklearn import metrics  # an extra

    target, answer, labels = round_.target.ravel(), round_.answer.ravel(), np.unique(round_.target)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        target, answer, labels=labels, average="macro", zero_division=0.0
    )
    found = {"accuracy": metrics.accuracy_score(target, answer), "precision": precision, "recall": recall, "f1": f1}
    if round_.probabilities is not None:
        probabilities = round_.probabilities.reshape(len(target), -1)
        probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)  # sums differ from 1 by rounding
        found["cross_entropy"] = metrics.log_loss(target, probabilities, labels=np.arange(probabilities.shape[1]))
    return {name: float(value) for name, value in found.items()}


def of_labels(
    agent: Agent, family: TaskFamily, split: str, tasks: int, seed: int = 0, greedy: bool = False
) -> dict[str, float]:
    """Return the measures of `classification` in the last round of an evaluation, on at most `MOST_TASKS` tasks."""
    return classification(_last(agent, family, split, tasks, seed, greedy, probabilities=True))


def of_values(
    agent: Agent, family: TaskFamily, split: str, tasks: int, seed: int = 0, greedy: bool = False
) -> dict[str, float]:
    """Return the mean squared error in the last round of an evaluation, and that of its last point."""
    error = _last(agent, family, split, tasks, seed, greedy).squared_error
    return {"mse": float(error.mean()), "mse_last_point": float(error[..., -1].mean())}


def _last(agent: Agent, family: TaskFamily, split: str, tasks: int, seed: int, greedy: bool, **how: Any) -> Answers:
    return answers(agent, family, split, min(tasks, MOST_TASKS), seed, greedy, **how)[-1]


register_measures(FewShotDigits, of_labels)
register_measures(Sinusoid, of_values)
