"""What the families of points in the plane share: expectations over random starts, and pictures."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from metarl.envs.navigation import MAX_STEP, Point

XY = tuple[float, float]
Pixel = Callable[[float, float], XY]  # metres to pixels


@functools.cache
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """A tensor of the values, made once: a recorded rollout must not copy from the host's memory."""
    return torch.tensor(values, device=device)


def walked(horizon: int, device: torch.device) -> Tensor:
    """How far a point can be along an axis after 1 … horizon steps: float64 (horizon,) metres."""
    return MAX_STEP * torch.arange(1, horizon + 1, device=device, dtype=torch.float64)


def over_starts(goal: Tensor, low: XY, high: XY, integral: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Mean (B, …) over starts uniform in a rectangle of a function of their distances to `goal` along the two axes.

    ``integral(a, b)`` is its integral over distances up to a and b, float64 (B, 1) each. The rectangle is four such
    integrals, one per quadrant around the goal, subtracted where the goal lies outside.
    """
    quadrants: list[Tensor] = []
    for x_side, y_side in itertools.product((-1, 1), repeat=2):
        a = (high[0] - goal[:, :1].double()) if x_side > 0 else (goal[:, :1].double() - low[0])
        b = (high[1] - goal[:, 1:].double()) if y_side > 0 else (goal[:, 1:].double() - low[1])
        quadrants.append(a.sign() * b.sign() * integral(a.abs(), b.abs()))
    return torch.stack(quadrants).sum(0) / ((high[0] - low[0]) * (high[1] - low[1]))


def norms(a: Tensor, b: Tensor) -> Tensor:
    """∫∫ √(x² + y²) over 0 ≤ x ≤ a, 0 ≤ y ≤ b."""
    a, b = a.clamp_min(1e-12), b.clamp_min(1e-12)
    return (2.0 * a * b * torch.hypot(a, b) + a**3 * torch.asinh(b / a) + b**3 * torch.asinh(a / b)) / 6.0


def disc_corner(a: Tensor, b: Tensor, r: float) -> Tensor:
    """Area of x² + y² ≤ r² within 0 ≤ x ≤ a, 0 ≤ y ≤ b, for a, b ≤ r."""
    segments = a * (r**2 - a**2).clamp_min(0.0).sqrt() + b * (r**2 - b**2).clamp_min(0.0).sqrt()
    cut = 0.5 * (segments + r**2 * (torch.asin(a / r) + torch.asin(b / r) - math.pi / 2))
    return torch.where(a**2 + b**2 <= r**2, a * b, cut)


def xy(vector: Tensor) -> XY:
    """The first row of (B, 2)."""
    x, y = vector[0].tolist()
    return x, y


def path_of(states: Iterable[Point]) -> list[XY]:
    """The positions of one row's states."""
    return [xy(state.position) for state in states]


def canvas(shown: list[XY]) -> tuple[Image.Image, ImageDraw.ImageDraw, Pixel]:
    """A white square that shows all the given points, and what turns metres into its pixels."""
    size, xs, ys = 480, [x for x, _ in shown], [y for _, y in shown]
    half = 0.56 * max(max(xs) - min(xs), max(ys) - min(ys))
    middle = 0.5 * (max(xs) + min(xs)), 0.5 * (max(ys) + min(ys))

    def pixel(x: float, y: float) -> XY:
        return size * (0.5 + 0.5 * (x - middle[0]) / half), size * (0.5 - 0.5 * (y - middle[1]) / half)

    image = Image.new("RGB", (size, size), "white")
    return image, ImageDraw.Draw(image), pixel


def draw_path(draw: ImageDraw.ImageDraw, pixel: Pixel, path: list[XY], longest: float) -> None:
    """Lines pale to dark in time; a black dot where an episode starts: a move beyond `longest` on an axis is none."""
    for t, end in enumerate(path):
        x, y = pixel(*end)
        before = path[t - 1] if t else (math.inf, math.inf)
        if max(abs(a - b) for a, b in zip(before, end, strict=True)) > longest + 1e-5:
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill="black")
            continue
        fade = round(200 * (1 - (t + 1) / len(path)))
        draw.line((*pixel(*before), x, y), fill=(fade, fade, 255), width=2)
        draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=(fade, fade, 255))


def draw_goal(
    draw: ImageDraw.ImageDraw,
    pixel: Pixel,
    goal: XY,
    radius: float,
) -> None:
    """A red dot and the circle that pays, which is drawn with at least 5 pixels."""
    x, y = pixel(*goal)
    reach = max(pixel(goal[0] + radius, goal[1])[0] - x, 5.0)
    draw.ellipse((x - reach, y - reach, x + reach, y + reach), outline="#e03131", width=2)
    draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill="#e03131")
    draw.text((x + reach + 2, y - 21), "goal", fill="#e03131", font_size=14)
