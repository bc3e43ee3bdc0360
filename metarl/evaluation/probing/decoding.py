"""Decoding of memories: decoders are fitted on some trials, and evaluated on others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from metarl.core.units import ALIKE
from metarl.evaluation.probing.decoders import Floats, divergence, fit_ridge, fit_softmax

LEAST = 20
"""Fewest training trials of a step; half as many are needed among the held-out ones."""


MOST_ROWS = 2000
"""Most rows to fit a single decoder for all steps."""


MOST_FEATURES = 512
"""Larger memories are reduced to this many principal components of the training rows."""


class Split(NamedTuple):
    """The training trials and the held-out ones."""

    fit: NDArray[np.bool_]  # (R,)
    unit: NDArray[np.int64]  # (R,) unit that is held out as a whole and that intervals resample: a task, or a trial


class Answers(NamedTuple):
    """Answers on the N held-out rows."""

    unit: NDArray[np.int64]  # (N,)
    error: Floats  # (N,) of the decoder: squared, in units of the standard deviation, or KL in nats
    constant: Floats  # (N,) of the constant answer, the mean over the training rows at this step
    guess: Floats | None  # (N,) mass of the decoder's most likely task; None for numbers
    best: Floats | None  # (N,) mass of the most likely task


class Rows(NamedTuple):
    """The rows of one or several steps."""

    x: Floats  # (N, F) minus the mean of the training rows at the step
    y: Floats  # (N, K)
    constant: Floats  # (N, K) the constant answer at the step
    unit: NDArray[np.int64]  # (N,)


def of_posterior(
    best: Sequence[NDArray[Any]], target: Sequence[NDArray[Any]], alive: NDArray[np.bool_], split: Split
) -> Answers:
    """Return the posterior mean's answers at S steps, ``(R, K)`` each, on the held-out trials."""
    _, held = _rows(best, target, alive, split, masses=False)
    answer = np.concatenate([each[lasts & ~split.fit] for each, lasts in zip(best, alive, strict=True)])
    error, constant = (np.square(held.y - each).sum(axis=1) for each in (answer, held.constant))
    return Answers(held.unit, error, constant, None, None)


def enough(alive: NDArray[np.bool_], split: Split) -> bool:
    """Return whether enough trials last until a step; `alive` is ``(R,)``."""
    return bool((alive & split.fit).sum() >= LEAST and (alive & ~split.fit).sum() >= LEAST // 2)


def answers(
    memory: Sequence[NDArray[Any]], target: Sequence[NDArray[Any]], alive: NDArray[np.bool_], split: Split, masses: bool
) -> Answers:
    """Fit one decoder to S steps, and evaluate it on the held-out trials.

    `memory` and `target` hold ``(R, F)`` and ``(R, K)`` of each step, `alive` is ``(S, R)``. The constant answer is
    computed per step, so that knowing the time gains nothing. With `masses` the target is a distribution and the
    decoder a softmax, mixed with the constant answer at N : 1 for N training rows. Else it is ridge regression, and
    the target is in units that the caller chooses.
    """
    fit, held = _rows(memory, target, alive, split, masses)
    x, asked = _scaled(fit.x, held.x)
    if masses:
        weight = fit_softmax(x, fit.y, np.log(fit.constant), fit.unit)
        said = special.softmax(np.log(held.constant) + asked @ weight, axis=1)
        guess = held.y[np.arange(len(said)), said.argmax(axis=1)]
        surest = 1.0 / (len(fit.y) + 1)  # of what no row was about, so few rows cannot be sure
        error = divergence(held.y, np.log((1.0 - surest) * said + surest * held.constant))
        constant = divergence(held.y, np.log(held.constant))
        return Answers(held.unit, error, constant, guess, held.y.max(axis=1))
    truth = held.y - held.constant
    residual = truth - asked @ fit_ridge(x, fit.y - fit.constant, fit.unit)
    return Answers(held.unit, np.square(residual).sum(axis=1), np.square(truth).sum(axis=1), None, None)


def _rows(
    memory: Sequence[NDArray[Any]], target: Sequence[NDArray[Any]], alive: NDArray[np.bool_], split: Split, masses: bool
) -> tuple[Rows, Rows]:
    """Return the training and the held-out rows; with many steps, only some of the trials are used for training."""
    parts: tuple[list[Rows], list[Rows]] = [], []
    stride = -(-int((alive & split.fit).sum()) // MOST_ROWS)
    for x, y, lasts in zip(memory, target, alive, strict=True):
        fit, held = np.flatnonzero(lasts & split.fit), np.flatnonzero(lasts & ~split.fit)
        centre, constant = x[fit].mean(axis=0, dtype=np.float64), _constant(y[fit], masses)
        for part, rows in zip(parts, (fit[::stride], held), strict=True):
            every = np.broadcast_to(constant, (len(rows), y.shape[1]))
            part.append(Rows(x[rows] - centre, y[rows].astype(np.float64), every, split.unit[rows]))
    fitted, asked = (Rows(*(np.concatenate(each) for each in zip(*part, strict=True))) for part in parts)
    return fitted, asked


def _constant(y: NDArray[Any], masses: bool) -> Floats:
    """Return the mean answer; for masses with one extra uniform row, so that none is 0."""
    mean: Floats = y.mean(axis=0, dtype=np.float64)
    return (mean * len(y) + 1.0 / len(mean)) / (len(y) + 1) if masses else mean


def _scaled(fit: Floats, held: Floats) -> tuple[Floats, Floats]:
    """Return inputs with variance 1, or principal components of many; inputs that vary only by rounding are dropped."""
    deviation = fit.std(axis=0)
    varies = deviation > ALIKE * max(1e-6, float(np.abs(fit).max(initial=0.0)))
    if not varies.any():
        return np.zeros((len(fit), 1)), np.zeros((len(held), 1))
    fit, held = (each[:, varies] / deviation[varies] for each in (fit, held))
    if fit.shape[1] <= MOST_FEATURES:
        return fit, held
    some = fit[:: -(-len(fit) // (2 * MOST_FEATURES))]
    components = np.linalg.svd(some, full_matrices=False)[2][:MOST_FEATURES].T
    return fit @ components, held @ components
