"""A decoder's way from memories to answers: fitted on some trials, asked about others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from metarl.core.units import ALIKE
from metarl.evaluation.probing.decoders import Floats, divergence, fit_ridge, fit_softmax

LEAST = 20
"""Trials that a step needs among those to fit, and half as many among those held out."""


MOST_ROWS = 2000
"""Rows at most that a decoder for all steps together is fitted to."""


MOST_FEATURES = 512
"""A memory of more numbers is shown to the decoder by so many principal components of the rows to fit."""


class Split(NamedTuple):
    """The trials to fit and those held out."""

    fit: NDArray[np.bool_]  # (R,)
    unit: NDArray[np.int64]  # (R,) what is held out as a whole, and what intervals resample: a task, or a trial


class Answers(NamedTuple):
    """Answers about the N rows that were held out."""

    unit: NDArray[np.int64]  # (N,)
    error: Floats  # (N,) of the decoder: squared, in units of the standard deviation, or KL in nats
    constant: Floats  # (N,) of the constant answer, the mean over the rows to fit at this step
    guess: Floats | None  # (N,) mass of the task that the decoder holds for the likeliest; None for numbers
    best: Floats | None  # (N,) mass of the likeliest task


class Rows(NamedTuple):
    """The rows of one or several steps."""

    x: Floats  # (N, F) less the mean of the rows to fit at the step
    y: Floats  # (N, K)
    constant: Floats  # (N, K) the constant answer at the step
    unit: NDArray[np.int64]  # (N,)


def of_posterior(
    best: Sequence[NDArray[Any]], target: Sequence[NDArray[Any]], alive: NDArray[np.bool_], split: Split
) -> Answers:
    """Return the posterior mean's own answers at S steps, ``(R, K)`` each, about the trials that are held out."""
    _, held = _rows(best, target, alive, split, masses=False)
    answer = np.concatenate([each[lasts & ~split.fit] for each, lasts in zip(best, alive, strict=True)])
    error, constant = (np.square(held.y - each).sum(axis=1) for each in (answer, held.constant))
    return Answers(held.unit, error, constant, None, None)


def enough(alive: NDArray[np.bool_], split: Split) -> bool:
    """Tell whether enough trials last until a step; `alive` is ``(R,)``."""
    return bool((alive & split.fit).sum() >= LEAST and (alive & ~split.fit).sum() >= LEAST // 2)


def answers(
    memory: Sequence[NDArray[Any]], target: Sequence[NDArray[Any]], alive: NDArray[np.bool_], split: Split, masses: bool
) -> Answers:
    """Fit one decoder to S steps, and ask it about the trials that are held out.

    `memory` and `target` hold ``(R, F)`` and ``(R, K)`` of each step, `alive` is ``(S, R)``. The constant answer is
    each step's own, so that it is no knowledge to know how late it is. With `masses` the target is a distribution and
    the decoder a softmax, mixed with the constant answer at N : 1 for N rows to fit. Else it is ridge regression, and
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
    """Return the rows to fit and those held out; of many steps only some of the trials are fitted to."""
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
    """Return the mean answer; that of masses as if there were one more row, of equal ones, so that none is 0."""
    mean: Floats = y.mean(axis=0, dtype=np.float64)
    return (mean * len(y) + 1.0 / len(mean)) / (len(y) + 1) if masses else mean


def _scaled(fit: Floats, held: Floats) -> tuple[Floats, Floats]:
    """Return inputs with the variance 1, or principal components of many; what varies only by rounding is left out."""
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
