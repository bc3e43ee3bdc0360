"""Scores of decoders, with intervals over the held-out units."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metarl.core import rng
from metarl.core.family import Key
from metarl.core.units import ALIKE
from metarl.evaluation import stats
from metarl.evaluation.probing.decoders import Floats
from metarl.evaluation.probing.decoding import Answers, Split, answers, enough, of_posterior

LEVEL = 0.95


class Estimate(NamedTuple):
    """A score at each of S steps and, last, that of one decoder for all of them: ``(S + 1,)`` each; nan: not defined.

    A score is undefined if there is nothing to explain, since nothing is known yet, or if too few trials last until
    the step.
    """

    mean: Floats
    low: Floats  # 95 % interval over the held-out units
    high: Floats


class Target(NamedTuple):
    """A decoding target at S steps of R trials."""

    values: NDArray[Any]  # (S, R, K)
    masses: bool  # whether they are the masses of K tasks


class Decoded(NamedTuple):
    """The scores of one target."""

    name: str  # "belief" or "task"
    measure: str  # "R²", "explained KL" or "accuracy"
    memory: Estimate
    shuffled: Estimate  # of memories of other trials
    ceiling: Floats | None  # (S + 1,) score of the exact belief itself; None: unknown
    error: Floats  # (S + 1,) mean error on held-out trials: KL in nats, or squared, in units of the variance
    constant: Floats  # (S + 1,) that of the constant answer


Every = list[Answers | None]
"""The answers at each step, and those of one decoder for all steps."""


def units(values: NDArray[Any], alive: NDArray[np.bool_], split: Split) -> Floats:
    """Return the standard deviation of numbers ``(S, R, K)`` over all training steps: ``(K,)``, NaN if constant."""
    seen = values[alive & split.fit].astype(np.float64)
    deviation: Floats = seen.std(axis=0)
    return np.where(deviation > ALIKE * np.maximum(1e-6, np.abs(seen).max(axis=0)), deviation, np.nan)


def standardised(values: NDArray[Any], unit: Floats) -> Floats:
    """Return numbers ``(S, R, K)`` in these units, without constant ones."""
    varies = ~np.isnan(unit)
    return np.asarray(values[..., varies] / unit[varies])


def shuffled(memory: NDArray[Any], alive: NDArray[np.bool_], split: Split, key: Key) -> NDArray[Any]:
    """Return memories ``(S, R, F)`` permuted among the trials at each step.

    Training and held-out trials are permuted separately, and each step keeps its set of memories.
    """
    dealt = memory.copy()
    for step in range(len(memory)):
        for part, rows in enumerate((alive[step] & split.fit, alive[step] & ~split.fit)):
            where = np.flatnonzero(rows)
            order = rng.permutation(rng.fold(rng.fold(key, step), part), len(where)).numpy()
            dealt[step, where] = memory[step, where[order]]
    return dealt


def repeated(memory: NDArray[Any], alive: NDArray[np.bool_], split: Split) -> Floats:
    """Return the fraction of held-out memories that, to three decimals, a training trial shares at the step: ``(S,)``.

    If it is close to 1, trials hardly differ, and a decoder only needs to recognise them.
    """
    shares = []
    for each, lasts in zip(memory.round(3) + 0.0, alive, strict=True):  # -0 is 0
        known = {row.tobytes() for row in each[lasts & split.fit]}
        asked = [row.tobytes() in known for row in each[lasts & ~split.fit]]
        shares.append(float(np.mean(asked)) if asked else np.nan)
    return np.array(shares)


def every_step(memory: NDArray[Any], target: Target, alive: NDArray[np.bool_], split: Split) -> Every:
    """Decode a target with one decoder per step, and with a single decoder for all steps."""
    return _each(memory, target, alive, split, functools.partial(answers, masses=target.masses))


def posterior_mean(best: NDArray[Any], target: Target, alive: NDArray[np.bool_], split: Split) -> Every:
    """Return the posterior mean's answers at each step and at all steps: the best possible ones."""
    return _each(best, target, alive, split, of_posterior)


def _each(
    given: NDArray[Any], target: Target, alive: NDArray[np.bool_], split: Split, answer: Callable[..., Answers]
) -> Every:
    there = [step for step in range(len(alive)) if enough(alive[step], split)]
    found: Every = [None] * (len(alive) + 1)
    for step in there:
        found[step] = answer(given[[step]], target.values[[step]], alive[[step]], split)
    if there:
        found[-1] = answer(given[there], target.values[there], alive[there], split)
    return found


def estimate(found: Every, score: Callable[[Answers], tuple[Floats, Floats]]) -> Estimate:
    """Return ratios of means over rows with their intervals; `score` gives numerators and denominators, ``(N,)``."""
    triples = [(np.nan,) * 3 if each is None else _ratio(each.unit, *score(each)) for each in found]
    return Estimate(*(np.array(column) for column in zip(*triples, strict=True)))


def explained(found: Answers) -> tuple[Floats, Floats]:
    """Return the fraction of the constant answer's error that the decoder removes: R², or explained KL."""
    return found.constant - found.error, found.constant


def accuracy(found: Answers) -> tuple[Floats, Floats]:
    """Return the probability that the decoder's guess is right."""
    assert found.guess is not None
    return found.guess, np.ones_like(found.guess)


def ceiling_of_guesses(found: Every) -> Floats:
    """Return the probability that the posterior's guess is right: ``(S + 1,)``."""
    return np.array([np.nan if each is None or each.best is None else each.best.mean() for each in found])


def mean_of(found: Every, field: str) -> Floats:
    """Return the mean of a field of the answers at each step: ``(S + 1,)``."""
    return np.array([np.nan if each is None else getattr(each, field).mean() for each in found])


def mean_estimate(values: NDArray[Any], alive: NDArray[np.bool_], split: Split) -> Estimate:
    """Return means of numbers ``(S, R)`` over held-out trials at each step and at all, with their intervals."""
    held, triples = alive & ~split.fit, []
    for of, where in [*zip(values, held, strict=True), (values, held)]:
        chosen = of[where].astype(np.float64)
        unit = np.broadcast_to(split.unit, where.shape)[where]
        triples.append(_ratio(unit, chosen, np.ones_like(chosen)) if len(chosen) else (np.nan,) * 3)
    return Estimate(*(np.array(column) for column in zip(*triples, strict=True)))


def _ratio(unit: NDArray[np.int64], above: Floats, below: Floats) -> tuple[float, float, float]:
    """Return a ratio of sums with its interval over units, from its linear expansion (the delta method)."""
    _, member = np.unique(unit, return_inverse=True)
    gained, whole = np.bincount(member, above), np.bincount(member, below)
    if whole.mean() <= ALIKE:
        return np.nan, np.nan, np.nan
    ratio = gained.sum() / whole.sum()
    linear = ratio + (gained - ratio * whole) / whole.mean()
    low, high = stats.interval(linear[None, :, None], level=LEVEL)
    return float(ratio), float(low[0]), float(high[0])
