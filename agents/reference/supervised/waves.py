"""Reference agents for `Sinusoid`: an oracle that knows the wave, and a least-squares fit."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.agents.random import FixedAgent, scripted
from metarl.agents.reference.told import told
from metarl.core.batch_env import Step
from metarl.core.family import Key, Task
from metarl.core.rollout import Acted, Memory
from metarl.core.tree import take, to_device
from metarl.envs.supervised.sinusoid import Sinusoid


class WaveOracle(FixedAgent):
    """Knows amplitude and phase: always right."""

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        return told(task)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        y = memory.amplitude * torch.sin(step.obs[:, 0] - memory.phase)
        return scripted(y[:, None], step), memory


class Fit(NamedTuple):
    """The belief about the two weights of y = a sin x + b cos x, and the last x, whose y is not known yet."""

    mean: Tensor  # (B, 2) float64
    covariance: Tensor  # (B, 2, 2) float64
    features: Tensor  # (B, 2) float64: sin and cos of the last x


class LeastSquares(FixedAgent):
    """Fits a sin x + b cos x to the points so far, by least squares with the mean and covariance of training waves.

    This is the best linear prediction from the values shown (Gauss–Markov): the error is 3.006 at the first point and 0
    from the third point on. Raises ValueError for a family that does not show values.
    """

    NOISE = 1e-9  # artificial variance of the values, which keeps the covariance from becoming singular

    def __init__(self, family: Sinusoid, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        if not family.show_previous:
            raise ValueError("least_squares needs the values of the points: show_previous must be true.")

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        mean_square, mean = (5.0**3 - 0.1**3) / (3.0 * 4.9), 2.55  # of the amplitude; a = A cos φ, b = -A sin φ
        b = -mean * 2.0 / math.pi
        variances = torch.tensor([mean_square / 2.0, mean_square / 2.0 - b * b], dtype=torch.float64)
        start = Fit(
            torch.tensor([[0.0, b]], dtype=torch.float64), torch.diag(variances)[None], torch.zeros(1, 2).double()
        )
        return to_device(take(start, torch.zeros(num_tasks, dtype=torch.int64)), self.device)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        fit: Fit = memory
        seen = (fit.features.abs().sum(-1) > 0) & (step.prev_done == 0)  # an episode's first observation shows no value
        error = step.obs[:, 1].double() - (fit.features * fit.mean).sum(-1)
        along = (fit.covariance @ fit.features[..., None])[..., 0]  # (B, 2)
        gain = along / ((fit.features * along).sum(-1, keepdim=True) + self.NOISE)
        mean = torch.where(seen[:, None], fit.mean + gain * error[:, None], fit.mean)
        less = fit.covariance - gain[..., None] * along[:, None]
        covariance = torch.where(seen[:, None, None], less, fit.covariance)
        x = step.obs[:, 0].double()
        features = torch.stack([x.sin(), x.cos()], dim=-1)
        answer = (features * mean).sum(-1, keepdim=True).to(torch.float32)
        return scripted(answer, step), Fit(mean, covariance, features)
