"""Conversion of a Gymnasium environment's spaces: float32 observations, and actions that agents support."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.spaces.utils import flatten

from metarl.core.errors import WrongResult, short, unknown
from metarl.core.family import Part

Observed = Mapping[str, tuple[float, float] | None]
"""Names of the entries of a Dict, with their bounds; None: the declared ones."""


_FLAT = (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


class Observations:
    """The conversion of an environment's observations to float32 arrays of `space`, made of `parts`.

    A Box keeps its shape; numbers are converted to float32. Discrete, MultiDiscrete and MultiBinary observations become
    zeros and ones. The entries of a Dict or Tuple, or those that `observe` names, are flattened and concatenated, and
    `parts` says where each is. `observe` may give an entry's bounds (low, high) in place of its declared ones. Raises
    ValueError for a space without a fixed size, such as Text.
    """

    def __init__(self, given: spaces.Space[Any], observe: Observed | None = None) -> None:
        if observe is not None:
            given = _chosen(given, observe)
        self._paths = list(_leaves(given, ()))
        parts = tuple(Part(".".join(path) or "observation", _box(space, path)) for path, space in self._paths)
        self.parts = parts if len(parts) > 1 else None
        self.space = parts[0].space if len(parts) == 1 else _joined(parts)
        self._simple = isinstance(given, spaces.Box)  # most are, and steps are many

    def __call__(self, obs: Any) -> np.ndarray:
        """Convert an observation of the environment to `space`. Raises WrongResult if its shape is wrong."""
        if self._simple:
            return _of_shape((), obs, self.space.shape)
        found = []
        for path, space in self._paths:
            value = obs
            for name in path:
                value = value[int(name) if isinstance(value, tuple) else name]
            flat = isinstance(space, _FLAT)
            shape = (spaces.flatdim(space),) if flat else space.shape
            found.append(_of_shape(path, flatten(space, value) if flat else value, shape))
        if len(found) == 1:
            return found[0]
        return np.concatenate([part.ravel() for part in found])


def _of_shape(path: tuple[str, ...], value: Any, shape: tuple[int, ...] | None) -> np.ndarray:
    """Return an observation, or its part at `path`, as float32. Raises WrongResult if its shape is wrong."""
    found = np.asarray(value, np.float32)
    if found.shape != shape:
        part = f" {'.'.join(path)!r}" if path else ""
        raise WrongResult(f"the observation{part} must have the shape {shape} of its space, got {found.shape}")
    return found


def observed(given: Any) -> Observed:
    """Parse the observed entries and their bounds: a list of names, or ``{name: null or [low, high]}``.

    Raises ValueError for anything else.
    """
    if isinstance(given, Sequence) and not isinstance(given, str) and all(isinstance(name, str) for name in given):
        return dict.fromkeys(given)
    bounds: dict[str, tuple[float, float] | None] = {}
    for name, pair in given.items() if isinstance(given, Mapping) else [("", given)]:
        good = isinstance(pair, Sequence) and len(pair) == 2 and all(type(end) in (int, float) for end in pair)
        if not name or (pair is not None and not (good and pair[0] < pair[1])):
            raise ValueError(
                f"observe must be names of entries, each with bounds such as [0, 10] if you like, got {short(given)}."
            )
        bounds[str(name)] = None if pair is None else (float(pair[0]), float(pair[1]))
    return bounds


def _chosen(given: spaces.Space[Any], observe: Observed) -> spaces.Dict:
    if not isinstance(given, spaces.Dict):
        raise ValueError(f"observe chooses entries of a Dict, and the observation space is {short(given)}.")
    for name in observe:
        if name not in given.spaces:
            raise ValueError(unknown("observation", name, given.spaces, where=" in observe"))
    return spaces.Dict({name: _bounded(name, given[name], bounds) for name, bounds in observe.items()})


def _bounded(name: str, space: spaces.Space[Any], bounds: tuple[float, float] | None) -> spaces.Space[Any]:
    """Return the space with these bounds."""
    if bounds is None:
        return space
    if not isinstance(space, spaces.Box):
        raise ValueError(f"observe gives bounds to {name!r}, which must be a Box, got {type(space).__name__}.")
    return spaces.Box(*bounds, space.shape, np.float32)


def _leaves(space: spaces.Space[Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], spaces.Space[Any]]]:
    """Yield the leaf spaces of Dicts and Tuples, with their paths."""
    if isinstance(space, spaces.Dict):
        for name, inner in space.spaces.items():
            yield from _leaves(inner, (*path, str(name)))
    elif isinstance(space, spaces.Tuple):
        for number, inner in enumerate(space.spaces):
            yield from _leaves(inner, (*path, str(number)))
    elif isinstance(space, (spaces.Box, *_FLAT)):
        yield path, space
    else:
        where = f"The observation {'.'.join(path)!r}" if path else "The observation space"
        raise ValueError(
            f"{where} has no fixed size: {type(space).__name__}. Choose others with observe=[…], or "
            "wrap the environment."
        )


def _box(space: spaces.Space[Any], path: tuple[str, ...]) -> spaces.Box:
    if isinstance(space, spaces.Box):
        return spaces.Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)
    return spaces.Box(0.0, 1.0, (spaces.flatdim(space),), np.float32)


def _joined(parts: Sequence[Part]) -> spaces.Box:
    low, high = (np.concatenate([getattr(part.space, end).ravel() for part in parts]) for end in ("low", "high"))
    return spaces.Box(low, high, dtype=np.float32)


class Actions:
    """The conversion of an agent's actions, of `space`, to those of an environment.

    A Box is flattened to one dimension, and its actions are clipped to its bounds. A MultiBinary
    space becomes MultiDiscrete; Discrete and MultiDiscrete stay. Raises ValueError for any other space.
    """

    def __init__(self, given: spaces.Space[Any]) -> None:
        self.given = given
        self.space: Any = given
        if isinstance(given, spaces.Box):
            low, high = (end.astype(np.float32).ravel() for end in (given.low, given.high))
            self.space = spaces.Box(low, high, dtype=np.float32)
        elif isinstance(given, spaces.MultiBinary):
            self.space = spaces.MultiDiscrete(np.full(given.shape, 2).ravel())
        elif isinstance(given, spaces.MultiDiscrete) and given.nvec.ndim > 1:
            self.space = spaces.MultiDiscrete(given.nvec.ravel(), start=given.start.ravel())
        elif not isinstance(given, (spaces.Discrete, spaces.MultiDiscrete)):
            raise ValueError(
                f"The action space must be a Box, Discrete, MultiDiscrete or MultiBinary, got {short(given)}: wrap the "
                "environment."
            )

    def __call__(self, action: np.ndarray) -> Any:
        """Convert an agent's action to one of the environment."""
        given = self.given
        if isinstance(given, spaces.Discrete):
            return int(action)
        if isinstance(given, spaces.Box):
            return np.clip(action.reshape(given.shape), given.low, given.high).astype(given.dtype)
        return action.reshape(given.shape).astype(given.dtype)
