"""Cross-validation over tasks: an agent's return on each task of a finite family after training on the others."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.evaluator import evaluate
from metarl.training.config.errors import ConfigError
from metarl.training.runs import run

HELD_OUT = "held out"
"""Name of the split that consists of all folds."""


def cross_validate(
    config: str | Path, *, folds: int = 5, repeats: int = 20, run_dir: str | Path | None = None, **overrides: Any
) -> AdaptationCurve:
    """Train on all tasks but a part, test on that part, for each of `folds` parts; return one curve over all tasks::

        curve = metarl.cross_validate("rl2_gridnavi", folds=7, total_iterations=100)
        curve.mean(), curve.interval()

    A finite family has few tasks, and its split `test` even fewer, so an interval over them is wide. Here every task
    is tested once, by an agent that was not trained on it. The curve has the tasks of all folds, each with its agent's
    result over `repeats` trials; its interval is over tasks, and, as there is one training seed for each fold, a
    difference between agents counts as one between tasks. The agents share most of their training tasks, so the
    interval is rather too narrow (Bengio and Grandvalet 2004).

    `config` and the overrides are those of `metarl.run`, of which the splits, ``fold`` and the final evaluation are set
    here. With `run_dir` the runs are kept in ``RUN_DIR/fold_1``, …, and the same call continues there; otherwise they
    are removed. Raises ConfigError, a ValueError, for a family with infinitely many tasks, or fewer than `folds`.
    """
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
        raise ConfigError(f"folds must be a whole number of at least 2, got {folds!r}.")
    own = {"fold", "train_split", "eval_splits", "final_eval_tasks", "auto_resume", "resume"} & {*overrides}
    if own:
        raise ConfigError(f"{sorted(own)[0]} is set by cross_validate itself: leave it out.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary if run_dir is None else run_dir)
        curves = []
        for part in range(1, folds + 1):
            trained = run(
                config,
                fold=f"{part}/{folds}",
                train_split="train",
                eval_splits=["valid"],
                final_eval_tasks=0,
                run_dir=str(folder / f"fold_{part}"),
                auto_resume=True,
                **overrides,
            )
            family = trained.agent.family
            count = family.num_tasks("test")
            assert count is not None, "a fold is finite"
            curves.append(evaluate(trained.agent, family, "test", count, repeats, step_curve=False))
    return join_tasks(curves)


def join_tasks(curves: Sequence[AdaptationCurve]) -> AdaptationCurve:
    """Join evaluations of several agents on different tasks to one curve over all tasks; ``steps`` is dropped.

    The curves have one seed each.
    """
    first = curves[0]
    tasks = np.array([curve.returns.shape[1] for curve in curves], dtype=np.float64)

    def joined(name: str, axis: int = 1) -> NDArray[Any] | None:
        parts = [getattr(curve, name) for curve in curves]
        return None if any(part is None for part in parts) else np.concatenate(parts, axis=axis)

    noise = None
    if all(curve.noise is not None for curve in curves):  # standard error of a mean over tasks: variances add up
        parts = np.stack([curve.noise for curve in curves if curve.noise is not None])
        weights = (tasks / tasks.sum())[:, None, None]
        noise = np.sqrt(np.square(weights * parts).sum(0))
    returns = joined("returns")
    assert returns is not None
    return replace(
        first,
        returns=returns,
        env_steps=np.average([curve.env_steps for curve in curves], axis=0, weights=tasks),
        random=joined("random", 0),
        oracle=joined("oracle", 0),
        success=joined("success"),
        halves=joined("halves"),
        noise=noise,
        steps=None,
        total_steps=None,
        split=HELD_OUT,
        distinct=int(tasks.sum()),
        training=(),
        task_values={name: np.concatenate([curve.task_values[name] for curve in curves]) for name in first.task_values},
    )
