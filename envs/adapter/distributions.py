"""Distributions of a task parameter, written as data: ``{"uniform": [0.5, 2.0]}``."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.errors import short, unknown
from metarl.core.family import Key

MOST_VALUES = 1_000_000
"""Largest number of values of a finite distribution."""


class Distribution(ABC):
    """A distribution of one number."""

    name: ClassVar[str]
    """Its key in a configuration."""
    dtype: torch.dtype = torch.float32

    @abstractmethod
    def draw(self, key: Key) -> Tensor:
        """Draw a number per key: ``(N,)``."""

    @abstractmethod
    def intervals(self) -> list[tuple[float, float]]:
        """Return the intervals that contain all numbers; a single value is an interval of length 0."""

    def values(self) -> Tensor | None:
        """Return the distinct, equally likely values of a finite distribution; None for a continuous one."""
        return None


class _Interval(Distribution):
    """A continuous distribution on one interval, ``[low, high]``, or several, weighted by their lengths."""

    def __init__(self, *intervals: tuple[float, float]) -> None:
        self._intervals = [(float(low), float(high)) for low, high in intervals]
        ends = torch.tensor([self._length(low, high) for low, high in self._intervals], dtype=torch.float64).cumsum(0)
        self._shares = (ends / ends[-1]).tolist()

    def intervals(self) -> list[tuple[float, float]]:
        return self._intervals

    def draw(self, key: Key) -> Tensor:
        u = rng.uniform(key, 1).squeeze(-1).double()
        drawn = torch.zeros_like(u)
        before = 0.0
        for (low, high), share in zip(self._intervals, self._shares, strict=True):
            here = self._at(low, high, ((u - before) / (share - before)).clamp(0.0, 1.0))
            drawn = torch.where(u >= before, here, drawn)
            before = share
        return drawn.to(torch.float32)

    def _length(self, low: float, high: float) -> float:
        return high - low

    def _at(self, low: float, high: float, u: Tensor) -> Tensor:
        return low + (high - low) * u


class Uniform(_Interval):
    """Uniform on one or several intervals."""

    name = "uniform"


class LogUniform(_Interval):
    """Log-uniform on one or several intervals of positive numbers."""

    name = "log_uniform"

    def _length(self, low: float, high: float) -> float:
        return math.log(high / low)

    def _at(self, low: float, high: float, u: Tensor) -> Tensor:
        return torch.exp(math.log(low) + math.log(high / low) * u)


class Choice(Distribution):
    """One of a list of equally likely values; integers if all of them are."""

    name = "choice"

    def __init__(self, *values: float) -> None:
        self.dtype = torch.int64 if all(isinstance(value, int) for value in values) else torch.float32
        self._values = torch.tensor(values, dtype=self.dtype)

    def draw(self, key: Key) -> Tensor:
        return self._values.to(key.device)[rng.integers(key, 1, len(self._values)).squeeze(-1)]

    def intervals(self) -> list[tuple[float, float]]:
        return [(value, value) for value in self._values.tolist()]

    def values(self) -> Tensor | None:
        return self._values


class Integers(Distribution):
    """An integer from `low` to `high`, both included, such as the seed of a layout."""

    name = "integers"
    dtype = torch.int64

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high

    def draw(self, key: Key) -> Tensor:
        return self.low + rng.integers(key, 1, self.high - self.low + 1).squeeze(-1)

    def intervals(self) -> list[tuple[float, float]]:
        return [(self.low, self.high)]

    def values(self) -> Tensor | None:
        return torch.arange(self.low, self.high + 1)


KINDS: dict[str, type[Distribution]] = {kind.name: kind for kind in (Uniform, LogUniform, Choice, Integers)}


def distribution(where: str, data: Any) -> Distribution:
    """Return the distribution that `data` describes; `where` names it in an error.

    ``{"uniform": [low, high]}`` and ``{"log_uniform": [low, high]}``, each also with a list of intervals;
    ``{"choice": [values]}``; ``{"integers": [first, last]}``; a number is a choice of one value. Raises ValueError.
    """
    if isinstance(data, Distribution):
        return data
    if _is_number(data):
        return Choice(data)
    if not isinstance(data, Mapping) or len(data) != 1:
        raise ValueError(
            f"{where} must be a distribution such as {{uniform: [0.5, 2.0]}}, with one of {', '.join(KINDS)}, or a "
            f"number, got {short(data)}."
        )
    name, numbers = next(iter(data.items()))
    if name not in KINDS:
        raise ValueError(unknown("distribution", name, KINDS, where=f" in {where}"))
    if name == "choice":
        return _choice(where, numbers)
    if name == "integers":
        return _integers(where, numbers)
    return _interval(where, name, numbers)


def _choice(where: str, numbers: Any) -> Choice:
    if not isinstance(numbers, Sequence) or not numbers or not all(map(_is_number, numbers)):
        raise ValueError(f"{where}: choice needs a list of numbers, got {short(numbers)}.")
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"{where}: choice must not list a value twice, got {short(numbers)}.")
    return Choice(*numbers)


def _integers(where: str, numbers: Any) -> Integers:
    good = isinstance(numbers, Sequence) and len(numbers) == 2 and all(type(number) is int for number in numbers)
    if not good or not 0 <= numbers[1] - numbers[0] < MOST_VALUES or min(numbers) < 0:
        raise ValueError(
            f"{where}: integers needs the first and the last of at most {MOST_VALUES:,} whole numbers that are not "
            f"negative, such as [0, 999], got {short(numbers)}."
        )
    return Integers(*numbers)


def _interval(where: str, name: str, numbers: Any) -> Distribution:
    several = isinstance(numbers, Sequence) and len(numbers) > 0 and all(isinstance(part, Sequence) for part in numbers)
    parts = numbers if several else [numbers]
    least = 0.0 if name == "log_uniform" else -math.inf
    for part in parts:
        good = isinstance(part, Sequence) and len(part) == 2 and all(map(_is_number, part))
        if not good or not least < part[0] < part[1] < math.inf:
            also = "positive " if name == "log_uniform" else ""
            raise ValueError(f"{where}: {name} needs [low, high] with {also}low < high, got {short(part)}.")
    return KINDS[name](*map(tuple, parts))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def overlap(one: Distribution, other: Distribution) -> bool:
    """Return whether a number can come from both; intervals that only touch do not overlap."""
    first, second = one.values(), other.values()
    if first is not None and second is not None:
        return bool(torch.isin(first.double(), second.double()).any())
    return any(
        (low < top and bottom < high)
        or (low == high and bottom <= low <= top)
        or (bottom == top and low <= top <= high)
        for low, high in one.intervals()
        for bottom, top in other.intervals()
    )
