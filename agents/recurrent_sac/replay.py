"""Replayed trials in the form that the update uses."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metarl.agents.recurrent_sac.network import SACNetwork
from metarl.core.batch_env import Step
from metarl.core.rollout import Rollout
from metarl.core.tree import features, take, tree_map
from metarl.core.units import inverse


class Batch(NamedTuple):
    """Consecutive steps of some trials, and the step after the last one."""

    burn_in: Tensor  # (S, B, F) encoded steps before the first one
    raw: Tensor  # (T + 1, B, F) encoded steps
    action: Tensor  # (T, B) or (T, B, A) in the network's own units
    reward: Tensor  # (T, B) in units of the rewards' running size
    following: Tensor  # (T, B) 1 where the next step's value counts
    mask: Tensor  # (T, B) 0 for padding
    task: Tensor  # (B, D) standardised


def replayed(net: SACNetwork, rollout: Rollout, first: int, length: int, burn_in: int, bootstrap_end: bool) -> Batch:
    """Return at most `length` steps of a rollout ``(T, B, …)`` from step `first`, with `burn_in` steps before them.

    The value after a row's last step of the trial is 0, unless `bootstrap_end`. Episode ends inside the trial are not
    terminals.
    """
    mask, encoder = rollout.mask, net.encoder
    end, start = min(first + length, len(mask)), max(first - burn_in, 0)
    following = torch.cat([mask[1:], torch.zeros_like(mask[:1])])
    steps = take(with_last(rollout, following), slice(start, end + 1))
    raw, _ = encoder.raw(steps, encoder.initial(mask.shape[1]))
    part = slice(first, end)
    return Batch(
        raw[: first - start],
        raw[first - start :],
        net.actions.to_own(rollout.acted.action[part]),
        rollout.outcome.reward[part] * inverse(encoder.reward_size),
        mask[part] if bootstrap_end else following[part],
        mask[part],
        net.told(features(rollout.task)),
    )


def with_last(rollout: Rollout, following: Tensor) -> Step:
    """Return the steps of a trial and, after a row's last step, one more: ``(T + 1, B, …)``.

    The additional step is made from the outcome of the last action. `following` ``(T, B)`` is 1 where the trial goes
    on.
    """
    step, outcome = rollout.step, rollout.outcome
    done = (outcome.terminated | outcome.truncated).to(step.prev_done.dtype)
    after = Step(outcome.final_obs, rollout.acted.action, outcome.reward, done)

    def joined(seen: Tensor, made: Tensor) -> Tensor:
        goes_on = following.reshape(*following.shape, *[1] * (seen.ndim - 2)) > 0
        return torch.cat([seen[:1], torch.where(goes_on, torch.cat([seen[1:], made[-1:]]), made)])

    steps: Step = tree_map(joined, step, after)
    return steps
