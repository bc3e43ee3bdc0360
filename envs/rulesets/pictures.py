"""Pictures of rulesets: the room with its tiles, the agent's path, and the ruleset as text."""

from __future__ import annotations

import math

import numpy as np
from PIL import ImageDraw

from metarl.core.family import Sketch
from metarl.envs.drawing.sheet import Sheet, pixels, shade
from metarl.envs.rulesets.room import Room
from metarl.envs.rulesets.rules import condition_name
from metarl.envs.rulesets.tiles import COLOURS, FIRST, FLOOR, SHAPES, WALL, tile_name

PAINT = dict(
    zip(
        COLOURS,
        (
            "#e03131", "#2f9e44", "#1971c2", "#7048e8", "#fcc419", "#868e96", "#ffffff", "#8d5524", "#f783ac",
            "#fd7e14",
        ),
        strict=True,
    )
)  # fmt: skip
LINE = "#343a40"


class RoomPicture(Sketch[Room]):
    """The room of the current episode, with its path and (paler) earlier ones, and the ruleset beside it."""

    CELL, PANEL, ROW = 40, 420, 18  # pixels

    def __init__(self, goal: list[int], rules: list[list[int]], size: int, horizon: int, episodes: int) -> None:
        self.size, self.horizon, self.episodes = size, horizon, episodes
        self.left = self.CELL * size
        self.sheet = Sheet(self.left + self.PANEL, max(self.left, 130 + self.ROW * len(rules)) + 1)
        text = [f"goal: {condition_name(*goal)}", "", *(_rule_name(rule) for rule in rules if rule[0])]
        for i, line in enumerate(text):
            self.sheet.ground.text((self.left + 12, 60 + self.ROW * i), line, fill="black", font_size=13)
        self.episode, self.time, self.state = 0, 0, (-1, 0, 0)
        self.grid: list[int] = []

    def add(self, state: Room, first: bool = False) -> None:
        if first or not self.episode:
            self.sheet.fade()
            self.episode, self.time = self.episode + 1, 0
        before, self.state = self.state, (int(state.position[0]), int(state.direction[0]), int(state.held[0]))
        self.grid = state.grid[0].tolist()
        self.reached = bool(state.reached[0])
        if self.time and before[0] != self.state[0]:
            ends = [*self._middle(before[0]), *self._middle(self.state[0])]
            self.sheet.pen.line(ends, fill=shade(self.time / self.horizon), width=3)
        self.time += 1

    def image(self) -> np.ndarray:
        image, draw = self.sheet.under_marks()
        for cell in range(self.size**2):
            wall = self.grid[cell] == WALL if self.grid else self._at_rim(cell)
            draw.rectangle(self._box(cell, 0), fill="#868e96" if wall else "#f1f3f5", outline="#ced4da")
        image, draw = self.sheet.with_marks(image)
        for cell, tile in enumerate(self.grid):
            if tile >= FIRST:
                draw_tile(draw, tile, self._box(cell, 7))
        if self.grid:
            self._draw_agent(draw)
            self._write(draw)
        return pixels(image)

    def _write(self, draw: ImageDraw.ImageDraw) -> None:
        x, held = self.left + 12, self.state[2]
        said = f"episode {self.episode} of {max(self.episodes, self.episode)}, step {self.time - 1}"
        draw.text((x, 8), said + (": goal reached" if self.reached else ""), fill="black", font_size=13)
        draw.text((x, 30), f"holds: {tile_name(held) if held else 'nothing'}", fill="black", font_size=13)

    def _draw_agent(self, draw: ImageDraw.ImageDraw) -> None:
        """Draw the agent as a triangle that points ahead, with the held tile on it."""
        cell, way, held = self.state
        x, y = self._middle(cell)
        angle, radius = math.pi / 2 * (way - 1), 0.45 * self.CELL
        corners = [
            (x + radius * math.cos(angle + turn), y + radius * math.sin(angle + turn)) for turn in (0.0, 2.5, -2.5)
        ]
        draw.polygon(corners, fill="#ffa94d", outline="black")
        if held:
            draw_tile(draw, held, (x - 6, y - 6, x + 6, y + 6))

    def _at_rim(self, cell: int) -> bool:
        return cell % self.size in (0, self.size - 1) or cell // self.size in (0, self.size - 1)

    def _middle(self, cell: int) -> tuple[float, float]:
        return self.CELL * (cell % self.size + 0.5), self.CELL * (cell // self.size + 0.5)

    def _box(self, cell: int, inside: float) -> tuple[float, float, float, float]:
        x, y = self.CELL * (cell % self.size), self.CELL * (cell // self.size)
        return x + inside, y + inside, x + self.CELL - inside, y + self.CELL - inside


def _rule_name(rule: list[int]) -> str:
    kind, a, b, product = rule
    return f"{condition_name(kind, a, b)} -> {tile_name(product) if product != FLOOR else 'nothing'}"


def draw_tile(draw: ImageDraw.ImageDraw, tile: int, box: tuple[float, float, float, float]) -> None:
    """Draw an object into a square box."""
    shape, colour = divmod(tile - FIRST, len(COLOURS))
    fill, name = PAINT[COLOURS[colour]], SHAPES[shape]
    left, top, right, bottom = box
    x, y, radius = (left + right) / 2, (top + bottom) / 2, (right - left) / 2
    if name == "ball":
        draw.ellipse(box, fill=fill, outline=LINE)
    elif name in ("square", "goal"):
        grow = radius / 3 if name == "goal" else 0.0
        draw.rectangle((left - grow, top - grow, right + grow, bottom + grow), fill=fill, outline=LINE)
        if name == "goal":
            draw.rectangle(box, outline=LINE)
    elif name == "key":
        for colour_of_line, width in ((LINE, max(4, round(radius / 2))), (fill, max(2, round(radius / 3)))):
            draw.line((x, y, x, bottom, x + radius / 2, bottom), fill=colour_of_line, width=width)
        draw.ellipse((x - radius / 2, top, x + radius / 2, y), fill=fill, outline=LINE)
    else:
        points = {"pyramid": 3, "hex": 6, "star": 10}[name]
        corners = []
        for i in range(points):
            angle = 2 * math.pi * i / points - math.pi / 2
            reach = radius * (0.45 if name == "star" and i % 2 else 1.1)
            corners.append((x + reach * math.cos(angle), y + reach * math.sin(angle)))
        draw.polygon(corners, fill=fill, outline=LINE)
