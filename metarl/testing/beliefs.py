"""The contract of a family's beliefs (`TaskFamily.belief`): a part of `metarl.testing.check_family`."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.batch_env import BatchEnv, Step
from metarl.core.beliefs.belief import Belief, FiniteBelief, GridBelief
from metarl.core.family import Task, TaskFamily
from metarl.core.tree import leaves, num_rows, take
from metarl.testing.contract import ROWS, random_action, require, same

STEPS = 60
"""Steps of a history."""


AT_ONCE = 20_000
"""Limit of rows × tasks of a finite belief: with more tasks, there are fewer and shorter histories."""


def check_beliefs(family: TaskFamily, seed: int = 0) -> None:
    """Check the belief of every split that has one, along histories of random actions on tasks of the split.

    The masses of a finite belief sum to 1 and start equal; the true task is never ruled out; rows are independent;
    nothing is modified in place; later steps do not change earlier beliefs; for deterministic steps, the posterior
    agrees with playing every task separately.
    """
    for split in dict.fromkeys([*family.splits, "valid"]):
        belief = family.belief(split)
        if belief is not None:
            name = f"{type(family).__name__}.belief({split!r})"
            require(isinstance(belief, Belief), f"{name} must be a Belief or None, got {type(belief).__name__}.")
            _check_belief(family, belief, split, name, seed)


def _check_belief(family: TaskFamily, belief: Belief, split: str, name: str, seed: int) -> None:
    count = belief.count if isinstance(belief, FiniteBelief) else 1
    rows = max(2, min(ROWS, AT_ONCE // count))
    steps = min(STEPS if count * rows < AT_ONCE // 2 else STEPS // 3, family.horizon * family.episodes_per_trial)
    task = family.sample_tasks(rng.key(seed), rows, split)
    keys = rng.fold(rng.key(seed), torch.arange(rows))
    history, actions = _history(family, task, keys, steps)
    states = inferred(belief, history)
    before = copy.deepcopy(states)
    for t, state in enumerate(states):
        _check_shown(belief, state, rows, f"{name}: after step {t}", task)
    _check_finite(belief, states, name)
    alone = inferred(belief, [take(step, slice(rows - 1, rows)) for step in history])
    for t, (whole, single) in enumerate(zip(states, alone, strict=True)):
        mine = take(whole, slice(rows - 1, rows))
        pairs = zip(leaves(mine), leaves(single), strict=True)
        close = all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in pairs)
        require(close, f"{name}: a row of a batch differs from a batch of only that row (step {t}).")
    _check_future(belief, history, states, before, name)
    if isinstance(belief, FiniteBelief) and not isinstance(belief, GridBelief) and not family.noisy:
        _check_brute_force(family, belief, states, history, actions, keys, name)


def inferred(belief: Belief, history: list[Step]) -> list[Any]:
    """Return the prior and the belief after each step of a history."""
    states = [belief.prior(len(history[0].obs))]
    for step in history:
        states.append(belief.posterior(states[-1], step))
    return states


def _history(family: TaskFamily, task: Task, keys: Tensor, steps: int) -> tuple[list[Step], list[Tensor]]:
    """Play random actions, one key per row; return the agent's steps and the actions."""
    env = BatchEnv(family, task, keys)
    history, actions = [env.reset()], list[Tensor]()
    for t in range(steps):
        actions.append(random_action(family.action_space, rng.fold(rng.fold(keys, 7), t)))
        history.append(env.step(actions[-1])[1])
    return history, actions


def _check_shown(belief: Belief, state: Any, rows: int, where: str, task: Task) -> None:
    shown, mass = belief.features(state), belief.log_prob(state, task)
    good = shown.shape == (rows, belief.size) and shown.dtype == torch.float32 and bool(shown.isfinite().all())
    require(good, f"{where}, features must be finite float32 of shape {(rows, belief.size)}, got {shown.shape}.")
    good = mass.shape == (rows,) and mass.dtype == torch.float32
    require(good, f"{where}, log_prob must be float32 of shape {(rows,)}, got {mass.dtype} {mass.shape}.")
    require(bool(mass.isfinite().all()), f"{where}, the true task is ruled out.")


def _check_finite(belief: Belief, states: list[Any], name: str) -> None:
    if not isinstance(belief, FiniteBelief):
        return
    for t, state in enumerate(states):
        total = belief.probs(state).sum(-1)
        require(bool(((total - 1.0).abs() < 1e-4).all()), f"{name}: the masses after step {t} do not sum to 1.")
    first = belief.probs(states[0])
    require(torch.allclose(first, first[:, :1]), f"{name}: the tasks of a split are equally likely at first.")


def _check_future(belief: Belief, history: list[Step], states: list[Any], before: list[Any], name: str) -> None:
    """Check that two histories with the same first half give the same beliefs in that half."""
    middle = len(history) // 2
    other = [step._replace(prev_reward=step.prev_reward + 1.0, obs=step.obs.flip(-1)) for step in history[middle:]]
    again = inferred(belief, history[:middle] + other)[: middle + 1]
    require(same(states[: middle + 1], again), f"{name} depends on later steps, or on chance.")
    for state, step in zip(before, history, strict=False):
        given = copy.deepcopy(state)
        belief.posterior(given, step)
        require(same(state, given), f"{name} modifies a belief in place.")
    require(same(states, before), f"{name} modifies a belief in place.")


def _check_brute_force(
    family: TaskFamily,
    belief: FiniteBelief,
    states: list[Any],
    history: list[Step],
    actions: list[Tensor],
    keys: Tensor,
    name: str,
) -> None:
    """Compare with the posterior from playing every task separately and ruling out those whose steps differ."""
    rows, count = len(keys), num_rows(belief.tasks)
    env = BatchEnv(family, take(belief.tasks, torch.arange(count).repeat(rows)), keys.repeat_interleave(count))
    possible, step = torch.ones(rows, count, dtype=torch.bool), env.reset()
    for t, seen in enumerate(history[: belief.compared_steps + 1]):
        if t:
            _, step = env.step(actions[t - 1].repeat_interleave(count, 0))
        for field in ("obs", "prev_reward", "prev_done"):
            would, was = getattr(step, field), getattr(seen, field).repeat_interleave(count, 0)
            least = belief.rounding if field == "prev_reward" else 1e-6
            close = torch.isclose(would, was, rtol=1e-5, atol=least)
            possible &= close.reshape(rows, count, -1).all(-1)
        expected = possible / possible.sum(-1, keepdim=True)
        right = torch.allclose(belief.probs(states[t + 1]), expected, rtol=1e-3, atol=1e-6)
        require(right, f"{name}: after step {t} the masses are not those of playing every task separately.")
