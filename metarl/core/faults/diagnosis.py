"""Diagnosis of a failed round: which method of the family failed, in which step, row and task.

Results are checked once per round, which costs next to nothing. Single steps are examined only after a fault.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.batch_env import BatchEnv, Outcome, Step
from metarl.core.errors import WrongResult, add_place
from metarl.core.family import AnyFamily, TaskFamily
from metarl.core.faults.results import shown_task, wrong_observation, wrong_state, wrong_step, wrong_tensor
from metarl.core.tree import leaves, take


@contextmanager
def explained(env: BatchEnv, steps: list[Step], acts: Sequence[Any], outcomes: list[Outcome]) -> Iterator[None]:
    """Explain an error in the block, which adds the steps of a round to these lists (see `raise_explained`)."""
    try:
        yield
    except Exception as error:  # a family's code may raise anything
        raise_explained(error, env, steps, outcomes, acts[-1].action if acts else None)


def check_round(env: BatchEnv, steps: list[Step], acts: Sequence[Any], outcomes: list[Outcome], rollout: Any) -> None:
    """Raise WrongResult if the family returned wrong types or shapes in a round; `rollout` stacks the lists."""
    if not _all_right(env, steps, outcomes, rollout):
        raise_explained(None, env, steps, outcomes, acts[-1].action)


def _all_right(env: BatchEnv, steps: list[Step], outcomes: list[Outcome], rollout: Any) -> bool:
    """Return True if the family's results in a round have the right shapes and types; values are not checked.

    Stacking ensures that all steps have equal shapes, but not equal types, since it converts numbers.
    """
    whole, shape = rollout.outcome, env.family.observation_space.shape
    time_and_rows = whole.reward.shape
    types = {outcome.reward.dtype for outcome in outcomes} | {step.obs.dtype for step in steps}
    return (
        types == {torch.float32}
        and whole.final_obs.dtype is torch.float32
        and whole.terminated.dtype is torch.bool
        and time_and_rows == rollout.mask.shape == whole.terminated.shape
        and rollout.step.obs.shape == whole.final_obs.shape == (*time_and_rows, *shape)
        and wrong_state(env.family, "step", env.state, env.num_envs, env.first_state) is None
    )


def raise_explained(
    error: Exception | None,
    env: BatchEnv,
    steps: list[Step],
    outcomes: list[Outcome],
    action: Tensor | None,
    at: int | None = None,
) -> NoReturn:
    """Raise WrongResult if the family caused an error; otherwise raise the error, with a note that says where.

    `steps` and `outcomes` are those of the round so far; the last step may have no outcome. Without an `error`, they
    are known to be wrong. `at` is the number of the step, from 1, if the lists do not show it.
    """
    if isinstance(error, WrongResult):
        raise error
    sentence: str | None
    found, number, raised = _first_wrong(env, steps, outcomes), len(outcomes) + 1, error
    if found is not None:
        number, sentence = found
        at = number if at is None else at
    elif env.family.opaque:  # no step can be played again
        sentence = None
    else:
        try:
            sentence = fault_of(env, action)
        except Exception as own:  # the family's own code raises, which it may have done in `error`
            sentence, raised = None, own if error is None else error
    row = None if env.family.opaque else first_faulty_row(env, action)
    place = f"step {number if at is None else at}" + ("" if row is None else f", first in {describe_row(env, row)}")
    if sentence is None and raised is not None:
        method = method_of(raised, env.family)
        add_place(raised, f"{'' if method is None else f'{type(env.family).__name__}.{method}, '}{place}")
        raise raised
    wrong = WrongResult(sentence or f"What {type(env.family).__name__} returned has wrong shapes or types")
    wrong.places.append(place)
    raise wrong from error


def _first_wrong(env: BatchEnv, steps: list[Step], outcomes: list[Outcome]) -> tuple[int, str] | None:
    """Find the first wrong result: return the number of its step, from 1, and what is wrong with it."""
    family, rows, device = env.family, env.num_envs, leaves(env.task)[0].device
    name = type(family).__name__
    for number in range(1, max(len(steps), len(outcomes)) + 1):
        found = None
        if number <= len(steps):
            method = ".observe after reset" if number == 1 else ".observe"
            found = wrong_observation(family, steps[number - 1].obs, rows, device, method)
        if found is None and number <= len(outcomes):
            reward, terminated, _, final_obs = outcomes[number - 1]
            found = (
                wrong_tensor(f"The rewards of {name}.step", reward, torch.float32, rows, device=device)
                or wrong_tensor(
                    f"The endings of {name}.step (`terminated`)", terminated, torch.bool, rows, device=device
                )
                or wrong_observation(family, final_obs, rows, device, ".observe after step")
            )
        if found is not None:
            return number, found
    return None


def fault_of(env: BatchEnv, action: Tensor | None, rows: Tensor | None = None) -> str | None:
    """Repeat the next step in some rows (default: all), and say what is wrong with the family's results.

    Returns None if nothing is wrong. Without an action, only `reset` and `observe` are checked. Raises what the family
    raises.
    """
    family = env.family
    rows = torch.arange(env.num_envs, device=env._keys.device) if rows is None else rows
    task, keys, n = take(env.task, rows), env._keys[rows], len(rows)
    if not hasattr(env, "first_state"):  # `reset` has not finished
        state = family.reset(task, rng.fold(rng.fold(keys, 0), torch.zeros_like(rows)))
        found = wrong_state(family, "reset", state, n)
        return found or wrong_observation(family, family.observe(task, state), n, keys.device, ".observe")
    started = family.reset(task, rng.fold(rng.fold(keys, 0), env.episode[rows]))
    found = (
        wrong_state(family, "reset", started, n)
        or wrong_state(family, "reset", started, n, take(env.first_state, rows))
        or wrong_observation(family, family.observe(task, started), n, keys.device, ".observe")
        or wrong_state(family, "step", env.state, env.num_envs, env.first_state)
    )
    if found or action is None:
        return found
    state = take(env.state, rows)
    start = env._start if isinstance(env._start, int) else env._start[rows]
    stepped = family.step(task, state, action[rows], rng.fold(rng.fold(keys, 1), env._step - start))
    found = wrong_step(family, state, stepped, n)
    return found or wrong_observation(family, family.observe(task, stepped[0]), n, keys.device, ".observe")


def first_faulty_row(env: BatchEnv, action: Tensor | None) -> int | None:
    """Find the first row in which the next step fails, by bisection; None if it succeeds in single rows."""

    def faulty(rows: Tensor) -> bool:
        try:
            return fault_of(env, action, rows) is not None
        except Exception:  # a user's code may raise anything
            return True

    rows = torch.arange(env.num_envs, device=env._keys.device)
    while len(rows) > 1:
        half = rows[: len(rows) // 2]
        rows = half if faulty(half) else rows[len(half) :]
    return int(rows[0]) if faulty(rows) else None


def describe_row(env: BatchEnv, row: int) -> str:
    """Return a row's number and the values of its task, for a message."""
    return f"row {row} of {env.num_envs}: {shown_task(env.task, row)}"


def method_of(error: BaseException, family: AnyFamily) -> str | None:
    """Return the family's method in which an error was raised; None if it was raised elsewhere."""
    names = [
        frame.f_code.co_name
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if frame.f_locals.get("self") is family
    ]
    return next((name for name in reversed(names) if hasattr(TaskFamily, name)), None)
