"""Regression of a sine wave from a few points."""

from __future__ import annotations

import math
from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from PIL import ImageDraw
from torch import Tensor

from metarl.core import rng
from metarl.core.checks import within
from metarl.core.errors import whole_number
from metarl.core.family import Key, Sketch, TaskFamily
from metarl.envs.drawing.sheet import Sheet, pixels

REACH = 5.0  # |x| of the points


MOST = 8.0  # the largest amplitude, of `ood`


class Wave(NamedTuple):
    """The function y = amplitude · sin(x - phase)."""

    amplitude: Tensor  # (B,) float32
    phase: Tensor  # (B,) float32 radians


class Points(NamedTuple):
    """The queried point, and the previous one with its answer; 0 at the first step."""

    x: Tensor  # (B,) float32
    last_x: Tensor  # (B,) float32
    last_y: Tensor  # (B,) float32: the right answer of the previous step
    answer: Tensor  # (B,) float32: the previous prediction


class Sinusoid(TaskFamily[Wave, Points]):
    """A sine wave of unknown amplitude and phase; predict its values, each of which is shown one step later.

    Description:
        At every step the observation contains a point x, and the action is the prediction of y(x). The next observation
        shows the correct value, so the error should fall from step to step. An episode is a set of points of one wave:
        a trial of one episode (the default) shows how good the k-th prediction is after k - 1 examples. Further
        episodes of a trial use new points of the same wave; the first observation of each shows 0 as the previous
        value, since there is none.

        For an agent whose policy has no memory, such as MAML's, `show_previous=False` reduces the observation to x, as
        in the source: the points of a round are then the examples of its gradient step, and the next round uses new
        points.

    What varies:
        Amplitude and phase of y = A sin(x - φ): `Wave`.

    Splits:
        - `train`, `valid`, `test`: A ~ U[0.1, 5), φ ~ U[0, π), in disjoint random streams.
        - `ood`: A ~ U[5, 8), larger than any in training; φ as in training.

    Actions:
        =====  ======================  =======  =====
        index  meaning                 range    unit
        =====  ======================  =======  =====
        0      the prediction of y(x)  [-8, 8]  none
        =====  ======================  =======  =====

        Predictions beyond the range are not clipped.

    Observations:
        =====  ============================================  =======  ====
        index  meaning                                       range    unit
        =====  ============================================  =======  ====
        0      x of the current point, ~ U[-5, 5)            [-5, 5]  none
        1      y of the previous point, 0 at the first step  [-8, 8]  none
               (left out with ``show_previous=False``)
        =====  ============================================  =======  ====

    Rewards:
        -(ŷ - y)².

    Endings:
        Never terminated; truncated after `horizon` points.

    Optimum:
        Known task: 0. Per point, in train: always predicting 0 earns -4.2517; the best prediction without knowledge of
        the task, -1.6234 cos x, earns -3.0057; random actions earn -25.585. Two points determine a wave, so a learner
        can be right from the third point on.

    Differs from the source:
        ====  ==================================  ========================================
        what  here                                there
        ====  ==================================  ========================================
        form  an episode with one point per step  a set of points for a gradient step, and
                                                  another set for the error after it
        ====  ==================================  ========================================

    Source:
        Finn et al. 2017, "Model-agnostic meta-learning", section 5.1 (5, 10 or 20 points); one point per step, with the
        previous value shown, as in Santoro et al. 2016.

    Version history:
        v0: first version.
    """

    def __init__(self, horizon: int = 10, show_previous: bool = True, episodes_per_trial: int = 1) -> None:
        self.horizon = whole_number("horizon", horizon)
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        self.show_previous = show_previous
        high = np.array([REACH, MOST] if show_previous else [REACH], np.float32)
        self.observation_space = gymnasium.spaces.Box(-high, high, dtype=np.float32)
        self.action_space = gymnasium.spaces.Box(-MOST, MOST, (1,), np.float32)

    def draw_tasks(self, keys: Key, split: str) -> Wave:
        amplitude, phase = rng.uniform(keys, 2).unbind(-1)
        low, high = (5.0, MOST) if split == "ood" else (0.1, 5.0)
        return Wave(low + (high - low) * amplitude, math.pi * phase)

    def check_task(self, task: Wave) -> None:
        within("Wave.amplitude", task.amplitude, 0.0, MOST)
        within("Wave.phase", task.phase, 0.0, 2.0 * math.pi)

    def reset(self, task: Wave, key: Key) -> Points:
        nothing = torch.zeros_like(task.phase)
        return Points(_point(key), nothing, nothing, nothing)

    def observe(self, task: Wave, state: Points) -> Tensor:
        return torch.stack([state.x, state.last_y] if self.show_previous else [state.x], dim=-1)

    def step(self, task: Wave, state: Points, action: Tensor, key: Key) -> tuple[Points, Tensor, Tensor]:
        y, answer = self.target(task, state)[:, 0], action[:, 0]
        after = Points(_point(key), state.x, y, answer)
        return after, -((answer - y) ** 2), torch.zeros_like(y, dtype=torch.bool)

    def target(self, task: Wave, state: Points) -> Tensor:
        return (task.amplitude * torch.sin(state.x - task.phase))[:, None]

    def oracle(self, task: Wave) -> Tensor:
        return torch.zeros_like(task.phase)

    def random_return(self, task: Wave) -> Tensor:
        # The mean of sin²(x - φ) = (1 - cos(2x - 2φ)) / 2 over x, and that of ŷ² over the action's range.
        mean_square = 0.5 - 0.5 * torch.cos(2.0 * task.phase) * (math.sin(2.0 * REACH) / (2.0 * REACH))
        return -self.horizon * (task.amplitude**2 * mean_square + MOST**2 / 3.0)

    def sketch(self, task: Wave, episodes: int = 1) -> Sketch[Points]:
        """Draw the wave, its queried points, and the error of each prediction (early ones paler)."""
        return _Curve(task, self.horizon)


def _point(key: Key) -> Tensor:
    """Draw x, float32 ``(B,)``, uniform between -5 and 5."""
    return 2.0 * REACH * rng.uniform(key, 1)[:, 0] - REACH


class _Curve(Sketch[Points]):
    """The wave as a line; a prediction is a red dot, joined to the wave by a line, with its number in the episode."""

    WIDTH, HEIGHT, TOP = 560, 400, 24  # pixels

    def __init__(self, task: Wave, horizon: int) -> None:
        self.horizon, self.count = horizon, 0
        self.sheet = Sheet(self.WIDTH, self.HEIGHT)
        ground, middle = self.sheet.ground, self._pixel(0.0, 0.0)
        ground.line((0, middle[1], self.WIDTH, middle[1]), fill="#dddddd")
        ground.line((middle[0], self.TOP, middle[0], self.HEIGHT), fill="#dddddd")
        for y in (-5, 5):
            ground.text((middle[0] + 4, self._pixel(0.0, y)[1]), str(y), fill="#888888", font_size=12, anchor="lm")
            ground.text((self._pixel(y, 0.0)[0], middle[1] + 4), str(y), fill="#888888", font_size=12, anchor="ma")
        amplitude, phase = float(task.amplitude[0]), float(task.phase[0])
        ground.text((10, 6), f"y = {amplitude:.2f} sin(x - {phase:.2f})", fill="black", font_size=14)
        xs = np.linspace(-REACH, REACH, 200)
        ground.line([self._pixel(x, amplitude * math.sin(x - phase)) for x in xs], fill="#1971c2", width=2)

    def _pixel(self, x: float, y: float) -> tuple[float, float]:
        across = (x + REACH) / (2.0 * REACH) * (self.WIDTH - 40) + 20
        return across, self.TOP + (1.0 - min(max(y / 10.0, -1.0), 1.0)) * (self.HEIGHT - self.TOP) / 2

    def add(self, state: Points, first: bool = False) -> None:
        if first:
            self.count = 0
            self.sheet.fade()
            return
        self.count += 1
        x, y, answer = (float(part[0]) for part in (state.last_x, state.last_y, state.answer))
        pen, (across, right), down = self.sheet.pen, self._pixel(x, y), self._pixel(x, answer)[1]
        pen.line((across, right, across, down), fill="#e03131")
        _dot(pen, across, right, "#1971c2")
        _dot(pen, across, down, "#e03131")
        if self.horizon <= 50:
            pen.text((across + 6, down - 6), str(self.count), fill="#e03131", font_size=12)

    def image(self) -> np.ndarray:
        return pixels(self.sheet.with_marks()[0])


def _dot(pen: ImageDraw.ImageDraw, x: float, y: float, colour: str) -> None:
    pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
