"""Steps of trials as returned by the interfaces, and returns and lengths of the episodes inside trials."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metarl.core.batch_env import Outcome


class Inner(NamedTuple):
    """Episodes inside trials that ended in a step."""

    ended: Tensor  # (B,) bool: whether an episode ended
    returns: Tensor  # (B,) float64: its return
    lengths: Tensor  # (B,) int64: its steps


class Shown(NamedTuple):
    """One step of a `TrialStream`."""

    obs: Tensor  # (B, D) after the action, also if the episode ended
    reward: Tensor  # (B,) float32
    terminated: Tensor  # (B,) bool
    truncated: Tensor  # (B,) bool
    episode_index: Tensor  # (B,) int64: number of the action's episode in its trial, from 0
    success: Tensor | None  # (B,) bool: whether the task is solved after the action; None if undefined
    inner: Inner | None  # with ``trial=True``, if an episode inside a trial ended


class Counts:
    """The return and the length of each row's episode so far, and the steps of its trial."""

    def __init__(self, rows: int) -> None:
        self.returns = np.zeros(rows)
        self.lengths, self.elapsed = np.zeros((2, rows), np.int64)

    def forget(self, rows: Tensor) -> None:
        """Reset the counts of these rows."""
        for counts in (self.returns, self.lengths, self.elapsed):
            counts[rows.numpy()] = 0

    def elapse(self) -> Tensor:
        """Count a step of every trial; return the steps of each so far: int64 ``(B,)``."""
        self.elapsed = self.elapsed + 1
        return torch.from_numpy(self.elapsed)

    @np.errstate(all="ignore")  # a user's rewards may be infinite
    def add(self, outcome: Outcome) -> Inner | None:
        """Add a step to the episodes; return those that ended, if any did."""
        returns, lengths = self.returns + outcome.reward.numpy(), self.lengths + 1
        ended = (outcome.terminated | outcome.truncated).numpy()
        self.returns, self.lengths = np.where(ended, 0.0, returns), np.where(ended, 0, lengths)
        return Inner(*map(torch.from_numpy, (ended, returns, lengths))) if ended.any() else None

    @np.errstate(all="ignore")
    def add_one(self, reward: np.float32, ended: bool) -> tuple[float, int] | None:
        """Add a step to the episode of the only row; return its return and its length if it has ended."""
        self.returns[0] += reward
        self.lengths[0] += 1
        if not ended:
            return None
        found = float(self.returns[0]), int(self.lengths[0])
        self.returns[0], self.lengths[0] = 0.0, 0
        return found


def infos_of(shown: Shown) -> list[dict[str, Any]]:
    """Return the info of each row, with Python numbers; `metarl.interop.gym_env` describes the entries."""
    index, infos = shown.episode_index.tolist(), list[dict[str, Any]]()
    if shown.success is None:
        infos = [{"episode_index": number} for number in index]
    else:
        both = zip(index, shown.success.tolist(), strict=True)
        infos = [{"episode_index": number, "success": success} for number, success in both]
    if shown.inner is not None:
        for row in shown.inner.ended.nonzero().squeeze(1).tolist():
            returns, lengths = float(shown.inner.returns[row]), int(shown.inner.lengths[row])
            infos[row]["inner_episode"] = {"r": returns, "l": lengths, "index": index[row]}
    return infos


def shown_alone(obs: np.ndarray, reward: float, terminated: bool, truncated: bool, info: dict[str, Any]) -> Shown:
    """Return the step of a single row as tensors."""

    def one(number: Any) -> Tensor:
        return torch.from_numpy(np.array([number]))

    ended, success = info.get("inner_episode"), info.get("success")
    inner = None if ended is None else Inner(one(True), one(ended["r"]), one(ended["l"]))
    solved = None if success is None else one(success)
    index = one(info["episode_index"])
    return Shown(
        torch.from_numpy(obs)[None], one(np.float32(reward)), one(terminated), one(truncated), index, solved, inner
    )
