"""Linear decoders: ridge regression for numbers, softmax regression for masses that sum to 1.

Inputs and targets are centred by the caller, so there are no intercepts. The regularisation strength is chosen by
cross-validation within the given rows; rows of one unit (a task, or a trial) stay in the same fold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

Floats = NDArray[np.float64]


RIDGE = tuple(10.0**power for power in range(-1, 6))
"""Candidate strengths of ridge regression, for inputs with variance 1."""


SOFTMAX = tuple(10.0**-power for power in range(7))
"""Candidate strengths of softmax regression, strongest first."""


FOLDS = 4


ITERATIONS = 60
"""Most L-BFGS iterations, starting at the solution for the previous strength."""


NEEDED = "scikit-learn is needed and not installed: pip install 'metarl[probe]'."


def folds(unit: NDArray[Any]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return the training and validation rows of each fold. Raises ValueError if scikit-learn is missing."""
    try:
        from sklearn.model_selection import GroupKFold  # an extra
    except ImportError as error:
        raise ValueError(NEEDED) from error
    number = min(FOLDS, len(np.unique(unit)))
    return list(GroupKFold(number).split(unit, groups=unit))


def fit_ridge(x: Floats, y: Floats, unit: NDArray[Any]) -> Floats:
    """Return the coefficients ``(F, K)`` of ridge regression from x ``(N, F)`` to y ``(N, K)`` (Hoerl & Kennard 1970).

    `unit` ``(N,)`` is the unit of each row. All K numbers share one strength.
    """
    splits = folds(unit)
    from sklearn.linear_model import Ridge

    losses = sum((_losses(x[fit], y[fit], x[check], y[check]) for fit, check in splits), np.zeros(len(RIDGE)))
    found = Ridge(RIDGE[int(losses.argmin())], fit_intercept=False).fit(x, y)
    coefficients: Floats = np.asarray(found.coef_, dtype=np.float64).reshape(y.shape[1], x.shape[1]).T
    return coefficients


def _losses(x: Floats, y: Floats, check_x: Floats, check_y: Floats) -> Floats:
    """Return the squared error on the validation rows under each strength, from a single decomposition."""
    if x.shape[1] <= len(x):
        value, vector = np.linalg.eigh(x.T @ x)
        asked, known = check_x @ vector, vector.T @ (x.T @ y)
    else:
        value, vector = np.linalg.eigh(x @ x.T)
        asked, known = check_x @ (x.T @ vector), vector.T @ y
    answers = ((asked / (np.maximum(value, 0.0) + strength)) @ known for strength in RIDGE)
    return np.array([np.square(check_y - answer).sum() for answer in answers])


def fit_softmax(x: Floats, y: Floats, offset: Floats, unit: NDArray[Any]) -> Floats:
    """Return the W ``(F, K)`` that minimises the KL divergence from the masses y to softmax(offset + x W).

    y ``(N, K)`` sums to 1 in each row; if it is one-hot, this is multinomial logistic regression. `offset` ``(N, K)``
    are the logarithms of the answer that ignores x, so that W = 0 is the constant answer.
    """
    best, least = SOFTMAX[0], np.inf
    splits = folds(unit)
    weights = [np.zeros((x.shape[1], y.shape[1])) for _ in splits]
    for strength in SOFTMAX:  # weaker ones start at the last solution; stop once validation gets worse
        total = 0.0
        for number, (fit, check) in enumerate(splits):
            weights[number] = minimal(x[fit], y[fit], offset[fit], strength, weights[number])
            total += float(cross_entropy(y[check], offset[check] + x[check] @ weights[number]).sum())
        if total >= least:
            break
        best, least = strength, total
    return minimal(x, y, offset, best, np.mean(weights, axis=0))


def minimal(x: Floats, y: Floats, offset: Floats, strength: float, start: Floats) -> Floats:
    """Return the coefficients that minimise the mean cross-entropy plus half the strength times their squared norm."""

    def loss(flat: Floats) -> tuple[float, Floats]:
        weight = flat.reshape(start.shape)
        logits = offset + x @ weight
        value = cross_entropy(y, logits).mean() + 0.5 * strength * (flat @ flat)
        gradient = x.T @ (special.softmax(logits, axis=1) - y) / len(x) + strength * weight
        return float(value), gradient.ravel()

    options = {"maxiter": ITERATIONS}
    found = optimize.minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x, dtype=np.float64).reshape(start.shape)


def cross_entropy(y: Floats, logits: Floats) -> Floats:
    """Return the cross-entropy of softmax(logits) under the masses y, in nats: ``(N,)``."""
    return np.asarray(special.logsumexp(logits, axis=1) - (y * logits).sum(axis=1))


def divergence(y: Floats, logits: Floats) -> Floats:
    """Return KL(y ‖ softmax(logits)) in nats: ``(N,)``."""
    return np.maximum(cross_entropy(y, logits) + special.xlogy(y, y).sum(axis=1), 0.0)
