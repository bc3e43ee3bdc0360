"""Pictures of moving bodies: poses of the current episode, and below them curves over the time of an episode."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple

import numpy as np
from PIL import ImageDraw
from torch import Tensor

from metarl.core.family import Sketch, StateT
from metarl.core.tree import named_leaves
from metarl.envs.drawing.planes import round_length, scale_bar
from metarl.envs.drawing.sheet import Sheet, pixels, shade

Line = list[tuple[float, float]]  # in metres, y up


GREY = ((215, 215, 240), (20, 20, 60))  # of poses, from pale to dark


POSES = 12


SHORTEST = 16
"""Smallest length of the time axis, in steps."""


class Pose(NamedTuple):
    """A body at one moment."""

    lines: list[Line]
    darkness: float  # from 0 to 1
    caption: str = ""  # below the ground
    middle: float = 0.0  # where the caption stands, in metres


class Curve(NamedTuple, Generic[StateT]):
    """A number over time."""

    name: str
    read: Callable[[StateT | None, StateT], float | None]  # the state before (None at an episode's start), the state
    low: float
    high: float
    wanted: float | None = None  # a red line
    grows: bool = False  # whether an axis around 0 grows for larger values; otherwise they are clipped


class Film(Sketch[StateT]):
    """A scene with poses of the present episode over one strip per curve, in which earlier episodes are paler.

    `world` is the scene's (left, bottom, right, top) in metres, drawn as large as it fits into `height` pixels (None:
    as many as it needs). ``poses(states)`` chooses what is shown of an episode's states so far; it should look at a
    few of them only. `says` stands above, three to a line. The axis of time ends at an episode's last step, or at a
    half, a quarter, … of it where all episodes so far are so short; `seconds` is what a step takes.
    """

    WIDTH, STRIP, HEAD, FOOT = 520, 74, 44, 20  # pixels

    def __init__(
        self,
        world: tuple[float, float, float, float],
        scenery: list[Line],
        poses: Callable[[Sequence[StateT]], list[Pose]],
        says: list[str],
        curves: list[Curve[StateT]],
        horizon: int,
        seconds: float | None = None,
        height: int | None = None,
        metres: bool = False,
    ) -> None:
        self.poses, self.horizon, self.seconds = poses, horizon, seconds
        self.curves = curves
        left, bottom, right, top = world
        room = self.WIDTH - 20
        height = round(room * (top - bottom) / (right - left)) if height is None else height
        self.scale = min(room / (right - left), height / (top - bottom))
        self.origin = 0.5 * self.WIDTH - self.scale * 0.5 * (left + right), self.HEAD + height + self.scale * bottom
        self.floor = self.HEAD + height
        self.sheet = Sheet(self.WIDTH, self.floor + 20 + self.STRIP * len(curves) + self.FOOT)
        for line in scenery:
            self.sheet.ground.line(self._pixels(line), fill="#868e96", width=2)
        for i in range(0, len(says), 3):
            text = "     ".join(says[i : i + 3])
            self.sheet.ground.text((10, 6 + 18 * (i // 3)), text, fill="black", font_size=14)
        if metres:
            length = round_length(0.25 * room / self.scale)
            scale_bar(self.sheet.ground, self.WIDTH - 14, self.HEAD - 10, self.scale * length, f"{length:g} m")
        self.states: list[StateT] = []  # of the current episode
        self.ranges = [(curve.low, curve.high) for curve in curves]
        self.values: list[list[list[float | None]]] = []  # [episode][step][curve]
        self.span = horizon
        while self.span > SHORTEST:
            self.span = math.ceil(self.span / 2)

    def add(self, state: StateT, first: bool = False) -> None:
        if first or not self.values:
            self.sheet.fade()
            self.states = []
            self.values.append([])
        before = self.states[-1] if self.states else None
        self.states.append(state)
        values = [curve.read(before, state) for curve in self.curves]
        self.values[-1].append(values)
        if self._make_room(values):
            self._draw_again()
        else:
            self._draw_values(self.values[-1], len(self.values[-1]) - 1)

    def image(self) -> np.ndarray:
        image, draw = self.sheet.with_marks()
        for pose in self.poses(self.states) if self.states else []:
            for line in pose.lines:
                draw.line(self._pixels(line), fill=shade(pose.darkness**2, GREY), width=3, joint="curve")
            x, _ = self._pixels([(pose.middle, 0.0)])[0]
            draw.text((x, self.floor + 8), pose.caption, fill="#666666", font_size=12, anchor="mm")
        for number, curve in enumerate(self.curves):
            self._draw_axis(draw, number, curve)
        time = "" if self.seconds is None else f" = {self.span * self.seconds:.3g} s"
        end = self.WIDTH - 12, self.sheet.height - 12
        draw.text((12, end[1]), "0", fill="#666666", font_size=12, anchor="lm")
        draw.text(end, f"{self.span} steps{time}", fill="#666666", font_size=12, anchor="rm")
        now = f"step {max(len(self.states) - 1, 0)}"
        if len(self.values) > 1:
            now = f"episode {len(self.values)}, {now}"
        draw.text((self.WIDTH // 2, end[1]), now, fill="#666666", font_size=12, anchor="mm")
        return pixels(image)

    def _make_room(self, values: list[float | None]) -> bool:
        """Extend the axes if the values need it; return True if one changed."""
        before = self.span, list(self.ranges)
        while len(self.values[-1]) - 1 > self.span:
            self.span = min(2 * self.span, max(self.horizon, len(self.values[-1]) - 1))
        for number, (curve, value) in enumerate(zip(self.curves, values, strict=True)):
            low, high = self.ranges[number]
            while curve.grows and value is not None and math.isfinite(value) and not low <= value <= high:
                low, high = 2.0 * low, 2.0 * high
            self.ranges[number] = low, high
        return before != (self.span, self.ranges)

    def _draw_again(self) -> None:
        """Redraw all curves after an axis has changed."""
        self.sheet.clear()
        for episode in self.values:
            self.sheet.fade()
            for step in range(len(episode)):
                self._draw_values(episode, step)

    def _draw_values(self, episode: list[list[float | None]], step: int) -> None:
        """Draw the curves from the previous step to this one."""
        for number in range(len(self.curves)):
            value = episode[step][number]
            before = episode[step - 1][number] if step else None
            if value is None:
                continue
            ends = [(step - 1, before), (step, value)] if before is not None else [(step, value)]
            places = [(self._at(t), self._up(number, v)) for t, v in ends]
            if len(places) == 1:
                self.sheet.pen.point(places, fill="#1971c2")
            else:
                self.sheet.pen.line(places, fill="#1971c2", width=1)

    def _draw_axis(self, draw: ImageDraw.ImageDraw, number: int, curve: Curve[StateT]) -> None:
        y, (low, high) = self._strip(number), self.ranges[number]
        draw.text((12, y), f"{curve.name}   ({low:.3g} … {high:.3g})", fill="black", font_size=13)
        draw.rectangle((10, y + 18, self.WIDTH - 10, y + self.STRIP - 6), outline="#ced4da")
        if curve.wanted is not None:
            wanted = self._up(number, curve.wanted)
            draw.line([(12, wanted), (self.WIDTH - 12, wanted)], fill="#e03131")

    def _strip(self, number: int) -> int:
        return self.floor + 20 + self.STRIP * number

    def _at(self, step: int) -> float:
        return 12 + (self.WIDTH - 24) * step / self.span

    def _up(self, number: int, value: float) -> float:
        low, high = self.ranges[number]
        share = min(max((value - low) / (high - low), 0.0), 1.0) if math.isfinite(value) else 0.0
        return self._strip(number) + self.STRIP - 8 - (self.STRIP - 28) * share

    def _pixels(self, line: Line) -> Line:
        return [(self.origin[0] + self.scale * x, self.origin[1] - self.scale * y) for x, y in line]


def chosen(states: Sequence[StateT], most: int) -> list[StateT]:
    """Choose at most this many states, equally spaced from the first to the last."""
    count = min(len(states), most)
    return [states[round(i * (len(states) - 1) / max(count - 1, 1))] for i in range(count)]


def overlaid(pose: Callable[[StateT], list[Line]]) -> Callable[[Sequence[StateT]], list[Pose]]:
    """Overlay the poses of an episode, darker over time."""

    def poses(states: Sequence[StateT]) -> list[Pose]:
        shown = chosen(states, POSES)
        return [Pose(pose(state), (i + 1) / len(shown)) for i, state in enumerate(shown)]

    return poses


def scales(task: tuple[Tensor, ...]) -> list[str]:
    """Return a line of text for each multiplier of one row."""
    return [f"{name.replace('_', ' ')} x {float(value[0]):.2f}" for name, value in named_leaves(task).items()]
