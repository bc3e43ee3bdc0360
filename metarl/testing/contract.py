"""The rules of a family's contract: functions that raise `Broken`, with one sentence, if a rule is broken.

`metarl.testing.check_family` checks all of them and more, thoroughly. `metarl.testing.quick_check` checks them with few
rows and steps; `metarl.train` calls it before training.
"""

from __future__ import annotations

import contextlib
import copy
import re
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from metarl.core import rng
from metarl.core.errors import WrongResult, short
from metarl.core.family import Part, State, Task, TaskFamily
from metarl.core.faults.diagnosis import method_of
from metarl.core.faults.results import wrong_observation, wrong_rows, wrong_state, wrong_step, wrong_tensor
from metarl.core.rollout import undeclared_ending
from metarl.core.tree import features, leaves, num_rows, take
from metarl.core.units import component_sizes, first_actions, uniform_choices

ROWS = 7  # odd, so that vectorised kernels have a remainder


DRAWS = 64
"""Number of tasks drawn to check that a split's tasks differ and are finite."""


ENUMERATED = 10_000
"""All tasks of a finite split are checked if it has at most this many."""


MAX_STEPS = 60
"""Steps per episode in a thorough check."""


SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""Format of a split's name, which becomes part of file names and TensorBoard tags."""


class Broken(AssertionError):
    """A broken rule of a contract. The message names the rule in one sentence."""


class Unrepeatable(Broken):
    """The same keys give different episodes."""


def require(condition: bool, message: str, kind: type[Broken] = Broken) -> None:
    """Raise `kind` with `message` unless `condition`; unlike ``assert`` also under ``python -O``."""
    if not condition:
        raise kind(message)


@contextlib.contextmanager
def in_one_sentence(family: TaskFamily) -> Iterator[None]:
    """Convert any exception of the family's own code to `Broken`, with its method, line and message."""
    try:
        yield
    except Broken:
        raise
    except WrongResult as wrong:
        raise Broken(str(wrong)) from wrong
    except Exception as error:  # a user's code may raise any exception
        mine = [f for f in traceback.walk_tb(error.__traceback__) if f[0].f_locals.get("self") is family]
        where = type(family).__name__
        if mine:
            frame, line = mine[-1]
            where += f".{frame.f_code.co_name} ({Path(frame.f_code.co_filename).name}, line {line})"
            if not hasattr(TaskFamily, frame.f_code.co_name) and (method := method_of(error, family)):
                where += f", called by {method},"
        said = " ".join(str(error).split()).rstrip(".")[:300]
        raise Broken(f"{where} failed: {type(error).__name__}{': ' if said else ''}{said}.") from error


@contextlib.contextmanager
def results_are_checked() -> Iterator[None]:
    """Convert errors of `sample_tasks` about a wrong result to `Broken`."""
    try:
        yield
    except WrongResult as wrong:
        raise Broken(str(wrong)) from wrong


def check_declaration(family: TaskFamily) -> None:
    """Check the attributes of a family: spaces, lengths, flags and names of splits."""
    name = type(family).__name__
    for attribute in ("observation_space", "action_space", "horizon", "episodes_per_trial"):
        there = getattr(family, attribute, None) is not None
        require(there, f"{name} has no {attribute}: set it in the class or in its constructor.")
    obs, action = family.observation_space, family.action_space
    good = isinstance(obs, spaces.Box) and obs.dtype == np.float32
    require(good, f"{name}.observation_space must be a float32 Box, got {obs}.")
    box = isinstance(action, spaces.Box) and action.dtype == np.float32 and len(action.shape) == 1
    good = isinstance(action, spaces.Discrete) or component_sizes(action) is not None or box
    kinds = "Discrete, or a one-dimensional MultiDiscrete or float32 Box"
    require(good, f"{name}.action_space must be {kinds}, got {action}.")
    _check_parts(name, obs, family.observation_parts)
    for attribute in ("horizon", "episodes_per_trial"):
        value = getattr(family, attribute)
        require(type(value) is int and value >= 1, f"{name}.{attribute} must be an int of at least 1, got {value!r}.")
    for attribute in ("terminates", "noisy", "random_start", "shows_task", "opaque"):
        value = getattr(family, attribute)
        require(isinstance(value, bool), f"{name}.{attribute} must be True or False, got {value!r}.")
    _check_split_names(name, family.splits)


def _check_parts(name: str, space: spaces.Box, parts: Any) -> None:
    if parts is None:
        return
    good = isinstance(parts, tuple) and len(parts) > 0 and all(isinstance(part, Part) for part in parts)
    require(good, f"{name}.observation_parts must be None or a tuple of metarl.core.family.Part, got {short(parts)}.")
    names = [part.name for part in parts]
    require(len(set(names)) == len(names), f"{name}.observation_parts must have different names, got {names}.")
    for part in parts:
        box = isinstance(part.space, spaces.Box)
        require(box, f"{name}.observation_parts: the space of {part.name!r} must be a Box, got {part.space}.")
    size = sum(part.size for part in parts)
    flat = f"{name}.observation_space must be one flat vector of all observation_parts, of the shape ({size},)"
    require(space.shape == (size,), f"{flat}, got {space.shape}.")


def _check_split_names(name: str, splits: Any) -> None:
    names = isinstance(splits, tuple) and all(isinstance(split, str) for split in splits)
    require(names, f"{name}.splits must be a tuple of names, such as ('train', 'test'), got {splits!r}.")
    require("train" in splits, f"{name}.splits must contain 'train', got {splits}.")
    require(len(set(splits)) == len(splits), f"{name}.splits must not name a split twice, got {splits}.")
    for split in splits:
        allowed = SPLIT_NAME.fullmatch(split) is not None
        require(allowed, f"{name}.splits: a name may have only letters, digits, '_', '-' and '.', got {split!r}.")


def check_tasks(family: TaskFamily, seed: int = 0) -> None:
    """Check `sample_tasks`: types, determinism, shards, and the error for an unknown split."""
    name, key = type(family).__name__, rng.key(seed)
    for split in family.splits:
        task = family.sample_tasks(key, ROWS, split)
        require(_is_named_tuple(task), f"A task of {name} must be a NamedTuple of tensors, got {type(task).__name__}.")
        refuse(wrong_rows(f"Every field of {name}'s tasks", task, ROWS, key.device))
        for leaf in leaves(task):
            require(leaf.dtype != torch.float64, f"A field of {name}'s tasks is float64; it must be float32.")
        again = elsewhere(partial(family.sample_tasks, key, ROWS, split))
        require(same(task, again), f"{name}.sample_tasks(split={split!r}) gives different tasks for the same key.")
        shard = family.sample_tasks(key, ROWS - 3, split, first=3)
        require(
            same(take(task, slice(3, None)), shard),
            f"{name}.sample_tasks(first=3) must return the tasks from number 3 on.",
        )
    try:
        family.sample_tasks(key, 1, "no such split")
    except ValueError:
        return
    raise Broken(f"{name}.sample_tasks must raise ValueError for a split that does not exist.")


def check_draws(family: TaskFamily, split: str, seed: int = 0) -> None:
    """Check that a split's tasks are finite, that a distribution's tasks differ, and that none is enumerated twice.

    A fixed list of drawn tasks (`train_tasks`) may hold the same task twice.
    """
    name = type(family).__name__
    drawn = family.sample_tasks(rng.key(seed), DRAWS, split)
    finite = all(bool(leaf.isfinite().all()) for leaf in leaves(drawn))
    require(finite, f"{name}: some of the {split!r} tasks are not finite: they hold nan or inf.")
    every = None if split == "valid" else family.enumerate_tasks(split)
    if every is not None and num_rows(every) <= ENUMERATED:
        twice = num_rows(every) - _different(every)
        require(twice == 0, f"{name}: {twice} of the {num_rows(every)} {split!r} tasks are enumerated twice.")
    elif every is None and family.num_tasks(split) is None:
        also = "; a split that has a single task is written in enumerate_tasks"
        require(_different(drawn) > 1, f"{name}: {DRAWS} draws of a {split!r} task are all equal: use the keys{also}.")


def check_physics(family: TaskFamily, seed: int = 0, split: str = "train", max_steps: int = MAX_STEPS) -> None:
    """Check `reset`, `observe` and `step` along an episode of random actions on tasks of a split."""
    name = type(family).__name__
    task = family.sample_tasks(rng.key(seed), ROWS, split)
    whole = play(family, task, seed, max_steps=max_steps, check=True)
    again = elsewhere(lambda: play(family, task, seed, max_steps=max_steps))
    how = "its environment may draw only from the generator that reset(seed=…) seeds" if family.opaque else ""
    unlike = f"{name} gives different episodes for the same keys: {how or 'use the keys for all randomness'}."
    require(same(whole, again), unlike, Unrepeatable)
    if not family.noisy and not family.opaque:
        keys = rng.fold(rng.key(seed), torch.arange(ROWS))
        state, action = family.reset(task, keys), random_action(family.action_space, keys)
        one, other = (family.step(task, state, action, rng.fold(keys, n)) for n in (1, 2))
        require(same(one, other), f"{name}.step depends on its key, but the family says noisy = False.")
    if not family.random_start:
        one, other = (family.reset(task, rng.fold(rng.key(n), torch.arange(ROWS))) for n in (1, 2))
        require(same(one, other), f"{name}.reset depends on its key, but the family says random_start = False.")
    for row in (0, ROWS // 2, ROWS - 1):
        alone = play(family, take(task, slice(row, row + 1)), seed, first_row=row, max_steps=max_steps)
        alike = all(torch.equal(w[:, row], a[:, 0]) for w, a in zip(whole, alone, strict=True))
        require(alike, f"{name}: row {row} of a batch differs from a batch of only that row.", Unrepeatable)


def check_first_observation(family: TaskFamily, seed: int = 0) -> None:
    """Check that the first observation does not depend on the task, unless the family has ``shows_task = True``."""
    if family.shows_task:
        return
    keys = rng.fold(rng.key(seed), torch.zeros(DRAWS, dtype=torch.int64))
    task = family.sample_tasks(rng.key(seed), DRAWS)
    obs = family.observe(task, family.reset(task, keys))
    alike = bool((obs == obs[:1]).all())
    name = type(family).__name__
    require(
        alike,
        f"{name}: the first observation depends on the task, so it tells which task it is "
        "(if that is intended, set shows_task = True in the class).",
    )


def check_bounds(family: TaskFamily, task: Task) -> dict[str, Tensor]:
    """Check the types of `oracle` and `random_return`; return the known ones by name, each ``(B,)``."""
    name, rows, known = type(family).__name__, num_rows(task), {}
    for method in ("oracle", "random_return"):
        value = getattr(family, method)(task)
        if value is None:
            continue
        _check_tensor(f"The values of {name}.{method}", value, torch.float32, rows)
        known[method] = value
    return known


class Episode(NamedTuple):
    """One episode of each row."""

    obs: Tensor  # (T + 1, B, *O)
    reward: Tensor  # (T, B)
    terminated: Tensor  # (T, B)


def play(
    family: TaskFamily, task: Task, seed: int, first_row: int = 0, max_steps: int = MAX_STEPS, check: bool = False
) -> Episode:
    """Play random actions from keyed draws, continuing after terminations; with `check`, check every step."""
    rows = num_rows(task)
    keys = rng.fold(rng.key(seed), torch.arange(first_row, first_row + rows))
    state = family.reset(task, rng.fold(keys, 0))
    if check:
        refuse(wrong_state(family, "reset", state, rows))
    obs, rewards, ends = [family.observe(task, state)], [], []
    alive = torch.ones(rows, dtype=torch.bool)
    if check:
        _check_observation(family, obs[0], alive)
    for t in range(1, min(family.horizon, max_steps) + 1):
        key = rng.fold(keys, t)
        action = random_action(family.action_space, rng.fold(key, 0))
        before = copy.deepcopy((task, state)) if check else None
        stepped = family.step(task, state, action, rng.fold(key, 1))
        if check:
            _check_step(family, before, (task, state), stepped)
        state, reward, terminated = stepped
        obs.append(family.observe(task, state))
        if check:
            _check_observation(family, obs[-1], alive)
        alive = alive & ~terminated
        rewards.append(reward)
        ends.append(terminated)
    return Episode(torch.stack(obs), torch.stack(rewards), torch.stack(ends))


def _check_observation(family: TaskFamily, obs: Any, alive: Tensor) -> None:
    name, space = type(family).__name__, family.observation_space
    refuse(wrong_observation(family, obs, len(alive), alive.device, ".observe"))
    finite = bool(obs[alive].isfinite().all())
    require(finite, f"The observations of {name}.observe must be finite, got nan or inf.")
    for row in obs[alive]:
        if not space.contains(row.numpy()):  # formatting a large observation is slow
            raise Broken(f"{name}: the observation {short(row.tolist())} is not in {short(space)}.")


def _check_step(family: TaskFamily, before: Any, after: tuple[Task, State], stepped: Any) -> None:
    name, rows = type(family).__name__, num_rows(after[0])
    if isinstance(stepped, tuple) and len(stepped) == 3:
        require(same(before, after), f"{name}.step modified its task or state in place; it must return a new one.")
    refuse(wrong_step(family, after[1], stepped, rows))
    _, reward, terminated = stepped
    require(bool(reward.isfinite().all()), f"The rewards of {name}.step must be finite, got nan or inf.")
    ended = not family.terminates and bool(terminated.any())
    require(not ended, undeclared_ending(family))


def refuse(sentence: str | None) -> None:
    """Raise `Broken` with this sentence; do nothing for None."""
    if sentence is not None:
        raise Broken(sentence)


def _check_tensor(what: str, value: Any, dtype: torch.dtype, rows: int) -> None:
    """Check that `value` is a finite `dtype` tensor ``(rows,)``."""
    refuse(wrong_tensor(what, value, dtype, rows, device=torch.device("cpu")))
    require(bool(value.isfinite().all()), f"{what} must be finite, got nan or inf.")


def random_action(space: spaces.Space, key: Tensor) -> Tensor:
    """Draw an action per key: uniform between two bounds, half-normal beyond one bound, else normal around 0."""
    if isinstance(space, spaces.Discrete):
        return int(space.start) + rng.integers(key, 1, int(space.n)).squeeze(-1)
    if isinstance(space, spaces.MultiDiscrete):
        return uniform_choices(key, first_actions(space), torch.as_tensor(space.nvec, dtype=torch.int64))
    assert isinstance(space, spaces.Box)
    low, high = torch.as_tensor(space.low), torch.as_tensor(space.high)
    if space.is_bounded():
        return low + (high - low) * rng.uniform(key, len(low))
    uniform, normal = rng.uniform(rng.fold(key, 0), len(low)), rng.normal(rng.fold(key, 1), len(low))
    below, above = low.isfinite(), high.isfinite()
    free = torch.where(below, low + normal.abs(), torch.where(above, high - normal.abs(), normal))
    return torch.where(below & above, low + (high - low) * uniform, free)


def same(a: Any, b: Any) -> bool:
    """Return whether two trees of tensors are bitwise equal (NaN equals itself)."""
    first, second = leaves(a), leaves(b)
    return len(first) == len(second) and all(
        x.shape == y.shape and x.dtype == y.dtype and torch.allclose(x, y, 0, 0, equal_nan=True)
        for x, y in zip(first, second, strict=True)
    )


def _different(task: Task) -> int:
    """Return the number of distinct tasks among the rows."""
    return len({row.tobytes() for row in features(task).numpy()})


def elsewhere(call: Callable[[], Any]) -> Any:
    """Return the result of `call` under another state of torch's global generator, which must have no effect."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(987654321)
        return call()


def _is_named_tuple(value: Any) -> bool:
    return isinstance(value, tuple) and type(value) is not tuple
