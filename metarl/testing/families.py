"""The contract of families as functions, for the tests of this and other projects.

::

    from metarl.testing import check_agent, check_family
    check_family(MyFamily())
    check_agent(RL2Config(meta_batch_size=8), MyFamily())

They raise AssertionError with one sentence that names the broken rule. A passed check is not a proof: it covers only
the steps, rows and tasks that a unit test has time for. `metarl.train` calls `quick_check` before training. The rules
are in `metarl.testing.contract`.
"""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.batch_env import make_env
from metarl.core.family import Task, TaskFamily, has_picture, has_target
from metarl.core.faults.given import no_family
from metarl.core.faults.results import wrong_tensor
from metarl.core.tree import features, num_rows
from metarl.interop.gym_env import GymEnv
from metarl.testing.agents import check_agent
from metarl.testing.beliefs import check_beliefs
from metarl.testing.contract import (
    ROWS,
    Broken,
    Unrepeatable,
    check_bounds,
    check_declaration,
    check_draws,
    check_first_observation,
    check_physics,
    check_tasks,
    in_one_sentence,
    play,
    random_action,
    refuse,
    require,
    results_are_checked,
    same,
)

_TASKS = 1500


_QUICK_STEPS = 20
"""Steps of an episode in a quick check."""


# Advice of both `check_env` about style and other libraries' networks, which some families cannot follow.
_ADVICE = (
    r".*probably too (low|high).*",
    r".*symmetric and normalized.*",
    r".*unconventional shape.*",
    r".*is an image but.*",
    r".*minimal resolution for an image.*",
    r".*non-zero start.*",
)


def check_family(family: TaskFamily, *, seed: int = 0) -> None:
    """Raise AssertionError unless `family` keeps the contract of `TaskFamily`, as far as a short test can tell.

    Checked: spaces, shapes and types; keyed randomness (the same keys give the same bits, a row of a batch equals a
    batch of one, shards equal the whole); nothing modified in place; tasks finite, not all equal, each enumerated once;
    splits disjoint, and `ood` distributed unlike `train`; first observations without the task, unless the family has
    ``shows_task = True``; endings; right and optimal actions; oracle and random returns; beliefs, where the family has
    them; copies; pictures; Gymnasium's and stable-baselines3's `check_env`, with and without ``trial=True``.
    """
    require(not no_family(family), no_family(family))
    check_declaration(family)
    with results_are_checked():
        check_tasks(family, seed)
        for split in family.splits:
            check_draws(family, split, seed)
        check_splits(family, seed)
    check_physics(family, seed)
    check_first_observation(family, seed)
    check_target(family, seed)
    check_optimal_actions(family, seed)
    check_returns(family, seed)
    check_beliefs(family, seed)
    check_copies(family, seed)
    check_picture(family, seed)
    for trial in (False, True):
        check_gymnasium(family, trial)


def quick_check(family: TaskFamily, split: str = "train", seed: int = 0) -> list[str]:
    """Run a fast part of `check_family` (a fraction of a second), before training on a split.

    Raises AssertionError for a fault that makes training impossible or wrong, or for an exception of the family's
    own code. Returns a sentence for each fault that affects only an evaluation or a picture: tasks of another
    split that are not finite or all equal, a `render` that fails, episodes of an opaque family that are not repeatable.
    """
    spoiled = []
    with in_one_sentence(family):
        check_declaration(family)
        check_tasks(family, seed)
        check_draws(family, split, seed)
        spoiled += _quick_physics(family, split, seed, _QUICK_STEPS)
        check_first_observation(family, seed)
        check_target(family, seed, split)
        check_optimal_actions(family, seed, split)
        check_bounds(family, family.sample_tasks(rng.key(seed), ROWS, split))
        for other in (each for each in family.splits if each != split):
            try:
                check_draws(family, other, seed)
            except Broken as fault:
                spoiled.append(str(fault))
                continue
            _quick_physics(family, other, seed, 1)
            check_bounds(family, family.sample_tasks(rng.key(seed), ROWS, other))
    try:
        with in_one_sentence(family):
            check_picture(family, seed)
    except Broken as fault:
        spoiled.append(str(fault))
    return spoiled


def _quick_physics(family: TaskFamily, split: str, seed: int, steps: int) -> list[str]:
    """Check the first steps of an episode; return a sentence if a simulator makes them unrepeatable."""
    try:
        check_physics(family, seed, split, steps)
    except Unrepeatable as fault:
        if not family.opaque:
            raise
        return [
            f"{fault} Evaluations of agents are then not paired, and a resumed run differs from an uninterrupted one."
        ]
    return []


def check_splits(family: TaskFamily, seed: int = 0) -> None:
    """Check that `train` shares no task with `test` or `ood`, and `valid` none with `test`.

    `ood` must be distributed unlike `train`, and a small `all` must contain the tasks of `train` and `test`.
    """
    name = type(family).__name__
    drawn = {split: _task_matrix(family, split, seed) for split in family.splits}
    sets = {split: {row.tobytes() for row in rows} for split, rows in drawn.items()}
    for mine, other in (("train", "test"), ("train", "ood"), ("valid", "test")):
        if mine in sets and other in sets:
            shared = len(sets[mine] & sets[other])
            # Scalar draws have 24 bits: among this many, one or two may coincide by chance.
            allowed = 2 if len(sets[mine]) > 0.9 * _TASKS else 0
            require(shared <= allowed, f"{name}: {shared} of the {other!r} tasks are also {mine!r} tasks.")
    if "ood" in drawn:
        from scipy.stats import ks_2samp  # slow import, not needed for training

        columns = zip(drawn["train"].T, drawn["ood"].T, strict=True)
        p = min(float(ks_2samp(a, b, method="asymp").pvalue) for a, b in columns)
        p *= drawn["ood"].shape[1]  # the smallest of many (Bonferroni)
        require(p < 1e-3, f"{name}: 'ood' tasks are distributed like 'train' tasks.")
    if "all" in sets and len(sets["all"]) * 20 < _TASKS:  # few enough that all were drawn
        inside = sets["train"] | sets.get("test", set())
        require(inside <= sets["all"], f"{name}: some 'train' or 'test' tasks are not among 'all'.")


def check_target(family: TaskFamily, seed: int = 0, split: str = "train") -> None:
    """Check that the family's target actions, if any, are in the action space."""
    if not has_target(family):
        return
    keys, name = rng.fold(rng.key(seed), torch.arange(ROWS)), type(family).__name__
    task = family.sample_tasks(rng.key(seed), ROWS, split)
    _check_actions(f"{name}.target", family.target(task, family.reset(task, keys)), family, keys)


def check_optimal_actions(family: TaskFamily, seed: int = 0, split: str = "train") -> None:
    """Check that the family's labels for imitation, if any, are in the action space and agree with each other."""
    cls = type(family)
    if cls.optimal_action is TaskFamily.optimal_action and cls.optimal_actions is TaskFamily.optimal_actions:
        return
    keys, name = rng.fold(rng.key(seed), torch.arange(ROWS)), type(family).__name__
    task = family.sample_tasks(rng.key(seed), ROWS, split)
    obs = family.observe(task, family.reset(task, keys))
    action, several = family.optimal_action(task, obs), family.optimal_actions(task, obs)
    if action is not None:
        _check_actions(f"{name}.optimal_action", action, family, keys)
    if several is None:
        return
    if action is None:
        raise Broken(f"{name} has optimal_actions and no optimal_action, which is one of them.")
    space = family.action_space
    if not isinstance(space, gymnasium.spaces.Discrete):
        raise Broken(f"{name}.optimal_actions is for Discrete actions, got {space}.")
    refuse(wrong_tensor(f"{name}.optimal_actions", several, torch.bool, ROWS, (int(space.n),), action.device))
    among = several.gather(1, (action - int(space.start))[:, None]).all()
    require(bool(among), f"{name}.optimal_actions must include optimal_action.")


def _check_actions(what: str, value: Any, family: TaskFamily, keys: Tensor) -> None:
    action = random_action(family.action_space, keys)
    refuse(wrong_tensor(what, value, action.dtype, len(keys), tuple(action.shape[1:]), action.device))
    for row in value:
        good = family.action_space.contains(row.numpy())
        require(good, f"{what} must be an action of {family.action_space}, got {row.tolist()}.")


def check_returns(family: TaskFamily, seed: int = 0, tasks: int = 256) -> None:
    """Compare `oracle` and `random_return` with episodes of random actions."""
    name = type(family).__name__
    task = family.sample_tasks(rng.key(seed), tasks)
    known = check_bounds(family, task)
    if not known:
        return
    returns = _random_returns(family, task, seed)
    # Equal returns do not rule out events that are rarer than one in this many episodes.
    unseen = 1.0 / tasks if bool((returns == returns[0]).all()) else 0.0
    for method, value in known.items():
        gap = (returns - value).double()
        margin = 5.0 * float(gap.std()) / math.sqrt(tasks) + 1e-4 * (1.0 + float(value.abs().mean())) + unseen
        mean = float(gap.mean())
        good = mean <= margin if method == "oracle" else abs(mean) <= margin
        require(good, f"{name}.{method} is wrong: random actions return {mean:.4g} more than it says, on average.")


def check_copies(family: TaskFamily, seed: int = 0) -> None:
    """Check that a pickled and a deep-copied family play the same episodes."""
    task = family.sample_tasks(rng.key(seed), 3)
    original = play(family, task, seed)
    try:
        twins = {"pickled": pickle.loads(pickle.dumps(family)), "deep-copied": copy.deepcopy(family)}
    except Exception as error:  # pickle may raise any exception
        raise Broken(f"{type(family).__name__} cannot be pickled or deep-copied: {error}") from error
    for how, twin in twins.items():
        alike = same(task, twin.sample_tasks(rng.key(seed), 3)) and same(original, play(twin, task, seed))
        require(alike, f"A {how} {type(family).__name__} plays other episodes than the original.")


def check_picture(family: TaskFamily, seed: int = 0) -> None:
    """Check that pictures of two tasks of each split along two episodes are uint8 arrays, all of one size.

    Pictures of one episode and of a whole trial may have different sizes. Exceptions of `render` or `sketch` pass
    through. A family without pictures passes.
    """
    if not has_picture(family):
        return
    family = family.drawable()
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
            f"The pictures of {type(family).__name__} must have one size for all tasks, steps and episodes, "
            f"so that they can be the frames of a video; found {said} pixels.",
        )


def _pictures(family: TaskFamily, task: Task, episodes: int, seed: int) -> Iterator[np.ndarray]:
    """Yield pictures at the start, after 1 and 5 steps, at the next episode's start, and after 1 and 3 steps of it."""
    sketch = family.sketch(task, episodes)
    for episode, steps in enumerate((5, 3)[: 2 if episodes > 1 else 1]):
        keys = rng.fold(rng.key(seed), torch.tensor([episode]))
        state = family.reset(task, keys)
        sketch.add(state, first=True)
        yield sketch.image()
        for t in range(1, min(family.horizon, steps) + 1):
            key = rng.fold(keys, t)
            state, _, terminated = family.step(task, state, random_action(family.action_space, key), key)
            sketch.add(state)
            if t in (1, steps):
                yield sketch.image()
            if bool(terminated):
                break


def check_gymnasium(family: TaskFamily | str, trial: bool = False, **options: Any) -> None:
    """Run Gymnasium's and stable-baselines3's `check_env` on the Gymnasium view, with warnings as errors."""
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


def _random_returns(family: TaskFamily, task: Task, seed: int) -> Tensor:
    """Play one episode of random actions per task; return their returns, float32 ``(B,)``."""
    rows = num_rows(task)
    env = make_env(family, task, rng.fold(rng.key(seed), 1), episodes=1)
    keys = rng.fold(rng.fold(rng.key(seed), 2), torch.arange(rows))
    env.reset()
    total, t = torch.zeros(rows), 0
    while not env.all_done():
        alive = env.alive
        outcome, _ = env.step(random_action(family.action_space, rng.fold(keys, t)))
        total, t = total + outcome.reward * alive, t + 1
    return total


def _task_matrix(family: TaskFamily, split: str, seed: int) -> np.ndarray:
    # Integers, such as permutations and maps, become float32, too. Adding 0.0 turns -0.0 into 0.0.
    return features(family.sample_tasks(rng.key(seed), _TASKS, split)).numpy() + np.float32(0.0)


__all__ = ["check_agent", "check_family", "check_gymnasium", "quick_check"]
