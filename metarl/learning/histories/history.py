"""Learning histories as tensors, and their construction from rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium
import torch
from torch import Tensor

from metarl.core.batch_env import Step
from metarl.core.family import AnyFamily, Task
from metarl.core.rollout import Rollout
from metarl.core.tree import num_rows, take, tree_map
from metarl.core.units import no_action


class History(NamedTuple):
    """Learning histories of B rows, each with all steps of an agent on one task, in order.

    Every tensor except those of `task` is ``(T, B, …)``, time first, as in a `Rollout`. Histories that are shorter than
    the longest one are padded: there `mask` is 0, and so is everything else.
    """

    task: Task  # (B, …) a NamedTuple of the family; several rows may have the same task
    obs: Tensor  # (T, B, *O) float32: the observation before the action
    action: Tensor  # (T, B) or (T, B, A) int64, or (T, B, A) float32
    reward: Tensor  # (T, B) float32: the reward for the action
    terminated: Tensor  # (T, B) bool: the task's own rules ended the episode, after the action
    truncated: Tensor  # (T, B) bool: the horizon ended the episode
    episode: Tensor  # (T, B) int64: the index of the episode, from 0: the progress of learning
    step: Tensor  # (T, B) int64: the index of the step in its episode, from 0
    mask: Tensor  # (T, B) float32: 1 for a step, 0 after the end of a history
    optimal: Any = ()  # like `action`: the optimal action given the task; () if the family does not know it

    @property
    def done(self) -> Tensor:
        """The steps that are the last of their episode, bool ``(T, B)``."""
        return self.terminated | self.truncated

    def inputs(self, action_space: gymnasium.Space[Any]) -> Step:
        """Return the inputs of an agent for which each history is one trial: a Step of ``(T, B, …)``."""
        nothing = no_action(action_space, self.mask.shape[1], self.mask.device)
        none = torch.zeros_like(self.reward[:1])
        return Step(
            self.obs,
            torch.cat([nothing[None].to(self.action.dtype), self.action[:-1]]),
            torch.cat([none, self.reward[:-1]]),
            torch.cat([none, self.done[:-1].to(torch.float32)]),
        )

    def rows(self, index: Any) -> History:
        """Take some of the histories; `index` is a slice, an index tensor or a mask."""
        taken: History = tree_map(lambda leaf: leaf[:, index], self._replace(task=()))
        return taken._replace(task=take(self.task, index))

    def only(self, wanted: Tensor) -> History:
        """Keep only the `wanted` steps, bool ``(T, B)``, and close the gaps; T becomes that of the longest history.

        The steps keep their `episode` and `step`.
        """
        wanted = wanted & (self.mask > 0)
        order = (~wanted).to(torch.uint8).argsort(dim=0, stable=True)[: int(wanted.sum(0).max())]  # wanted ones first
        there = wanted.gather(0, order)

        def moved(leaf: Tensor) -> Tensor:
            trailing = [1] * (leaf.ndim - 2)
            found = leaf.gather(0, order.reshape(*order.shape, *trailing).expand(-1, -1, *leaf.shape[2:]))
            return found.masked_fill(~there.reshape(*there.shape, *trailing), 0)

        kept: History = tree_map(moved, self._replace(task=()))
        return kept._replace(task=self.task)


def history_of(trial: Sequence[Rollout], family: AnyFamily, task: Task) -> History:
    """Make the learning histories on `task` (N tasks) from the rounds of a trial.

    Rounds are concatenated, and so are the rows that play the same task in parallel within a round.
    """
    n = num_rows(task)
    parts = [_serial(rollout, n) for rollout in trial]
    whole: History = tree_map(lambda *leaves: torch.cat(leaves), parts[0], *parts[1:])
    whole = whole.only(whole.mask > 0)
    episode = _episodes(whole)
    history = whole._replace(task=task, episode=episode * whole.mask.long(), step=_steps(episode, whole.mask))
    return history._replace(optimal=_optimal(history, family))


def _serial(rollout: Rollout, tasks: int) -> History:
    """Rearrange a round of ``(T, tasks × each)`` steps to ``(each × T, tasks)``, the rows of a task in sequence."""
    outcome, counts = rollout.outcome, torch.zeros_like(rollout.mask, dtype=torch.int64)
    flat = History(
        (), rollout.step.obs, rollout.acted.action, outcome.reward, outcome.terminated, outcome.truncated,
        counts, counts, rollout.mask,
    )  # fmt: skip
    serial: History = tree_map(lambda leaf: leaf.unflatten(1, (tasks, -1)).movedim(2, 0).flatten(0, 1), flat)
    return serial


def _episodes(history: History) -> Tensor:
    done = history.done.to(torch.int64)
    return done.cumsum(0) - done


def _steps(episode: Tensor, mask: Tensor) -> Tensor:
    """Return the index of each step in its episode, given the index of the episode ``(T, B)``."""
    time = torch.arange(len(episode), device=episode.device)[:, None]
    began = torch.zeros_like(episode)
    began[1:] = torch.where(episode[1:] > episode[:-1], time[1:], 0)
    return (time - began.cummax(0).values) * mask.long()


def _optimal(history: History, family: AnyFamily) -> Any:
    """Return the family's optimal actions at every step; () if it does not know them."""
    found = []
    for obs in history.obs:
        action = family.optimal_action(history.task, obs)
        if action is None:
            return ()
        found.append(action)
    optimal, mask = torch.stack(found), history.mask > 0
    return optimal.masked_fill(~mask.reshape(*mask.shape, *[1] * (optimal.ndim - 2)), 0)
