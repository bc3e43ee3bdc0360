"""The contracts of families and agents as functions that anybody's tests can call.

::

    from metarl.testing import check_agent, check_family
    check_family(MyFamily())
    check_agent(RL2Config(meta_batch_size=8), MyFamily())

They raise AssertionError with one sentence that says which rule is broken. A passed check is no proof: the numbers of
steps, rows and tasks that are tried are small enough for a unit test.
"""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from scipy import stats
from torch import Tensor

from metarl import rng
from metarl.agent_contract import ROWS, check_agent, leaves, require, same
from metarl.batch_env import BatchEnv
from metarl.family import Task, TaskFamily, features, has_picture, num_rows, take
from metarl.gym_env import GymEnv

_MAX_STEPS = 60
_TASKS = 1500
# Advice of the two `check_env` that concerns taste or other libraries' networks, and that some physics cannot follow.
_ADVICE = (r".*probably too (low|high).*", r".*symmetric and normalized.*", r".*unconventional shape.*")


def check_family(family: TaskFamily, *, shows_task: bool = False, seed: int = 0) -> None:
    """Raise AssertionError unless `family` keeps the contract of `TaskFamily` as far as a short test can see.

    Checked: spaces, shapes and types; addressed randomness (the same keys give the same bits, a row of a batch is a
    batch of one, shards are the whole); nothing modified in place; splits disjoint and of their own distribution; no
    task in the first observation (`shows_task` says that it belongs there); endings; oracle and random returns;
    copies; pictures; Gymnasium's and stable-baselines3's `check_env`, with and without ``trial=True``.
    """
    check_declaration(family)
    check_tasks(family, seed)
    check_splits(family, seed)
    check_physics(family, seed)
    if not shows_task:
        check_first_observation(family, seed)
    check_returns(family, seed)
    check_copies(family, seed)
    check_picture(family, seed)
    for trial in (False, True):
        check_gymnasium(family, trial)


def check_declaration(family: TaskFamily) -> None:
    """The attributes that a family declares."""
    name = type(family).__name__
    obs, action = family.observation_space, family.action_space
    require(isinstance(obs, spaces.Box) and obs.dtype == np.float32, f"{name}.observation_space must be a float32 Box.")
    discrete = isinstance(action, spaces.Discrete) and action.start == 0
    box = isinstance(action, spaces.Box) and action.dtype == np.float32 and len(action.shape) == 1
    require(discrete or box, f"{name}.action_space must be Discrete from 0 or a one-dimensional float32 Box.")
    for attribute in ("horizon", "episodes_per_trial"):
        value = getattr(family, attribute)
        require(type(value) is int and value >= 1, f"{name}.{attribute} must be an int of at least 1, got {value!r}.")
    known = ("train", "test", "ood", "all")
    require(set(family.splits) <= set(known), f"{name}.splits must be among {known}, got {family.splits}.")
    require("train" in family.splits, f"{name}.splits must contain 'train'.")


def check_tasks(family: TaskFamily, seed: int = 0) -> None:
    """`sample_tasks`: types, determinism, shards, and the error for an unknown split."""
    name, key = type(family).__name__, rng.key(seed)
    for split in family.splits:
        task = family.sample_tasks(key, ROWS, split)
        require(_is_named_tuple(task), f"A task of {name} must be a NamedTuple of tensors, got {type(task).__name__}.")
        for leaf in leaves(task):
            require(leaf.shape[:1] == (ROWS,), f"Every field of {name}'s tasks must have one row per task.")
            require(leaf.dtype != torch.float64, f"A field of {name}'s tasks is float64; it must be float32.")
        again = _elsewhere(lambda split=split: family.sample_tasks(key, ROWS, split))
        require(same(task, again), f"{name}.sample_tasks(split={split!r}) gives different tasks for the same key.")
        shard = family.sample_tasks(key, ROWS - 3, split, first=3)
        require(same(take(task, slice(3, None)), shard), f"{name}.sample_tasks(first=3) is not the rest of the whole.")
    try:
        family.sample_tasks(key, 1, "no such split")
    except ValueError:
        return
    raise AssertionError(f"{name}.sample_tasks must raise ValueError for a split that does not exist.")


def check_splits(family: TaskFamily, seed: int = 0) -> None:
    """No task of `test` or `ood` among those of `train`; `ood` distributed unlike `train`; `all` holds the others."""
    name = type(family).__name__
    drawn = {split: _task_matrix(family, split, seed) for split in family.splits}
    sets = {split: {row.tobytes() for row in rows} for split, rows in drawn.items()}
    for other in ("test", "ood"):
        if other in sets:
            shared = len(sets["train"] & sets[other])
            # Two draws of a number have 24 bits each: among so many there may be a coincidence, but not a few.
            allowed = 2 if len(sets["train"]) > 0.9 * _TASKS else 0
            require(shared <= allowed, f"{name}: {shared} of the {other!r} tasks are also 'train' tasks.")
    if "ood" in drawn:
        columns = zip(drawn["train"].T, drawn["ood"].T, strict=True)
        p = min(float(stats.ks_2samp(a, b).pvalue) for a, b in columns)
        p *= drawn["ood"].shape[1]  # the smallest of many (Bonferroni)
        require(p < 1e-3, f"{name}: 'ood' tasks are distributed like 'train' tasks.")
    if "all" in sets and len(sets["all"]) * 20 < _TASKS:  # so few that all of them were seen
        inside = sets["train"] | sets.get("test", set())
        require(inside <= sets["all"], f"{name}: some 'train' or 'test' tasks are not among 'all'.")


def check_physics(family: TaskFamily, seed: int = 0) -> None:
    """`reset`, `observe` and `step` along an episode of random actions."""
    name = type(family).__name__
    task = family.sample_tasks(rng.key(seed), ROWS)
    whole = _play(family, task, seed, check=True)
    again = _elsewhere(lambda: _play(family, task, seed))
    require(same(whole, again), f"{name} gives different episodes for the same keys: use the keys for all randomness.")
    if not family.noisy:
        keys = rng.fold(rng.key(seed), torch.arange(ROWS))
        state, action = family.reset(task, keys), _random_action(family.action_space, keys)
        one, other = (family.step(task, state, action, rng.fold(keys, n)) for n in (1, 2))
        require(same(one, other), f"{name}.step depends on its key, but the family says noisy = False.")
    if not family.random_start:
        one, other = (family.reset(task, rng.fold(rng.key(n), torch.arange(ROWS))) for n in (1, 2))
        require(same(one, other), f"{name}.reset depends on its key, but the family says random_start = False.")
    for row in (0, ROWS // 2, ROWS - 1):
        alone = _play(family, take(task, slice(row, row + 1)), seed, first_row=row)
        alike = all(torch.equal(w[:, row], a[:, 0]) for w, a in zip(whole, alone, strict=True))
        require(alike, f"{name}: row {row} of a batch differs from a batch of that row alone.")


def check_first_observation(family: TaskFamily, seed: int = 0) -> None:
    """The first observation is the same whatever the task."""
    keys = rng.fold(rng.key(seed), torch.zeros(64, dtype=torch.int64))
    task = family.sample_tasks(rng.key(seed), 64)
    obs = family.observe(task, family.reset(task, keys))
    alike = bool((obs == obs[:1]).all())
    require(alike, f"{type(family).__name__}: the first observation depends on the task, so it tells which task it is.")


def check_returns(family: TaskFamily, seed: int = 0, tasks: int = 256) -> None:
    """`oracle` and `random_return`, against episodes of random actions."""
    name = type(family).__name__
    task = family.sample_tasks(rng.key(seed), tasks)
    said = {"oracle": family.oracle(task), "random_return": family.random_return(task)}
    known = {method: value for method, value in said.items() if value is not None}
    for method, value in known.items():
        shape = value.shape == (tasks,) and value.dtype == torch.float32 and bool(value.isfinite().all())
        require(shape, f"{name}.{method} must return finite float32 numbers of shape (B,), got {value.shape}.")
    if not known:
        return
    returns = _random_returns(family, task, seed)
    # Where all are equal, what happens less than once in so many episodes may exist, and no spread tells of it.
    unseen = 1.0 / tasks if bool((returns == returns[0]).all()) else 0.0
    for method, value in known.items():
        gap = (returns - value).double()
        margin = 5.0 * float(gap.std()) / math.sqrt(tasks) + 1e-4 * (1.0 + float(value.abs().mean())) + unseen
        mean = float(gap.mean())
        good = mean <= margin if method == "oracle" else abs(mean) <= margin
        require(good, f"{name}.{method} is wrong: random actions return {mean:.4g} more than it says, on average.")


def check_copies(family: TaskFamily, seed: int = 0) -> None:
    """A pickled and a deep-copied family play the same episodes."""
    task = family.sample_tasks(rng.key(seed), 3)
    original = _play(family, task, seed)
    try:
        twins = {"pickled": pickle.loads(pickle.dumps(family)), "deep-copied": copy.deepcopy(family)}
    except Exception as error:  # whatever pickle raises: it is not one kind
        raise AssertionError(f"{type(family).__name__} cannot be pickled or deep-copied: {error}") from error
    for how, twin in twins.items():
        alike = same(task, twin.sample_tasks(rng.key(seed), 3)) and same(original, _play(twin, task, seed))
        require(alike, f"A {how} {type(family).__name__} plays other episodes than the original.")


def check_picture(family: TaskFamily, seed: int = 0) -> None:
    """Pictures, if there are any, of two tasks of each split along two episodes: arrays of uint8, all of one size.

    A trial of one episode and a whole trial may have different sizes. What `render` or `sketch` itself raises goes on.
    """
    if not has_picture(family):
        return
    for episodes in {1, family.episodes_per_trial}:
        shapes = set()
        for split in family.splits:
            for number in (0, 1):
                task = family.sample_tasks(rng.key(seed), 1, split, first=number)
                for picture in _pictures(family, task, episodes, seed):
                    good = isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.shape[2:] == (3,)
                    require(good, f"A picture of {type(family).__name__} must be a uint8 array (height, width, 3).")
                    shapes.add(picture.shape[:2])
        said = " and ".join(f"{height} × {width}" for height, width in sorted(shapes))
        require(
            len(shapes) == 1,
            f"The pictures of {type(family).__name__} must have one size whatever the task, the step and the episode, "
            f"or they cannot be the frames of a video; found {said} pixels.",
        )


def _pictures(family: TaskFamily, task: Task, episodes: int, seed: int) -> Iterator[np.ndarray]:
    """At the start of a trial, after 1 and 5 steps, at the next episode's start, and after 3 steps of it."""
    sketch = family.sketch(task, episodes)
    for episode, steps in enumerate((5, 3)[: 2 if episodes > 1 else 1]):
        keys = rng.fold(rng.key(seed), torch.tensor([episode]))
        state = family.reset(task, keys)
        sketch.add(state, first=True)
        yield sketch.image()
        for t in range(1, min(family.horizon, steps) + 1):
            key = rng.fold(keys, t)
            state, _, terminated = family.step(task, state, _random_action(family.action_space, key), key)
            sketch.add(state)
            if t in (1, steps):
                yield sketch.image()
            if bool(terminated):
                break


def check_gymnasium(family: TaskFamily | str, trial: bool = False, **options: Any) -> None:
    """Gymnasium's and stable-baselines3's `check_env` on the Gymnasium view, with warnings as errors."""
    from gymnasium.utils.env_checker import check_env
    from stable_baselines3.common.env_checker import check_env as check_sb3

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="Not able to test alternative render modes")
        for advice in _ADVICE:
            warnings.filterwarnings("ignore", message=advice)
        if isinstance(family, str):
            env = gymnasium.make(family, trial=trial, **options).unwrapped
        else:
            env = GymEnv(family, trial=trial, **options)
        check_env(env, skip_render_check=env.spec is None)
        check_sb3(env)


class _Episode(NamedTuple):
    obs: Tensor  # (T + 1, B, *O)
    reward: Tensor  # (T, B)
    terminated: Tensor  # (T, B)


def _play(family: TaskFamily, task: Task, seed: int, first_row: int = 0, check: bool = False) -> _Episode:
    """Random actions from addressed draws, past the terminations, with checks of every step if wanted."""
    rows = num_rows(task)
    keys = rng.fold(rng.key(seed), torch.arange(first_row, first_row + rows))
    state = family.reset(task, rng.fold(keys, 0))
    obs, rewards, ends = [family.observe(task, state)], [], []
    alive = torch.ones(rows, dtype=torch.bool)
    if check:
        _check_observation(family, obs[0], alive)
    for t in range(1, min(family.horizon, _MAX_STEPS) + 1):
        key = rng.fold(keys, t)
        action = _random_action(family.action_space, rng.fold(key, 0))
        before = copy.deepcopy((task, state)) if check else None
        after, reward, terminated = family.step(task, state, action, rng.fold(key, 1))
        obs.append(family.observe(task, after))
        if check:
            _check_step(family, before, (task, state), reward, terminated)
            _check_observation(family, obs[-1], alive)
        alive = alive & ~terminated
        state = after
        rewards.append(reward)
        ends.append(terminated)
    return _Episode(torch.stack(obs), torch.stack(rewards), torch.stack(ends))


def _check_observation(family: TaskFamily, obs: Tensor, alive: Tensor) -> None:
    name, space = type(family).__name__, family.observation_space
    require(obs.dtype == torch.float32, f"{name}.observe must return float32, got {obs.dtype}.")
    expected = (len(alive), *space.shape)
    require(obs.shape == expected, f"{name}.observe must return the shape {expected}, got {tuple(obs.shape)}.")
    for row in obs[alive]:
        require(space.contains(row.numpy()), f"{name}: the observation {row.tolist()} is not in {space}.")


def _check_step(family: TaskFamily, before: Any, after: Any, reward: Tensor, terminated: Tensor) -> None:
    name, rows = type(family).__name__, num_rows(after[0])
    require(same(before, after), f"{name}.step modified its task or state in place.")
    good = reward.dtype == torch.float32 and reward.shape == (rows,) and bool(reward.isfinite().all())
    require(good, f"{name}.step must return finite float32 rewards of shape ({rows},).")
    good = terminated.dtype == torch.bool and terminated.shape == (rows,)
    require(good, f"{name}.step must return a bool `terminated` of shape ({rows},).")
    ended = not family.terminates and bool(terminated.any())
    require(not ended, f"{name}.step terminated an episode although {name}.terminates is False.")


def _random_returns(family: TaskFamily, task: Task, seed: int) -> Tensor:
    """Return of one episode of random actions per task: float32 ``(B,)``."""
    rows = num_rows(task)
    env = BatchEnv(family, task, rng.fold(rng.key(seed), 1), episodes=1)
    keys = rng.fold(rng.fold(rng.key(seed), 2), torch.arange(rows))
    env.reset()
    total, t = torch.zeros(rows), 0
    while not env.all_done():
        alive = env.alive
        outcome, _ = env.step(_random_action(family.action_space, rng.fold(keys, t)))
        total, t = total + outcome.reward * alive, t + 1
    return total


def _random_action(space: spaces.Space, key: Tensor) -> Tensor:
    if isinstance(space, spaces.Discrete):
        return rng.integers(key, 1, int(space.n)).squeeze(-1)
    low, high = torch.as_tensor(space.low), torch.as_tensor(space.high)  # type: ignore[attr-defined]
    return low + (high - low) * rng.uniform(key, len(low))


def _task_matrix(family: TaskFamily, split: str, seed: int) -> np.ndarray:
    # Permutations, maps and other integers are features like the rest; -0.0 and 0.0 are one number.
    return features(family.sample_tasks(rng.key(seed), _TASKS, split)).numpy() + np.float32(0.0)


def _elsewhere(call: Any) -> Any:
    """What `call` returns when the global generators stand elsewhere: nothing may depend on them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(987654321)
        return call()


def _is_named_tuple(value: Any) -> bool:
    return isinstance(value, tuple) and type(value) is not tuple


__all__ = ["check_agent", "check_family", "check_gymnasium"]
