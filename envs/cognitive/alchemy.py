"""Alchemy: learn the effects of potions on stones, then make valuable stones."""

from __future__ import annotations

import functools
import itertools
from typing import ClassVar, NamedTuple

import gymnasium
import numpy as np
import torch
from PIL import ImageDraw
from torch import Tensor

from metarl.core import rng
from metarl.core.checks import possible, within
from metarl.core.errors import whole_number
from metarl.core.family import Key, Sketch, TaskFamily
from metarl.envs.drawing.sheet import Sheet, pixels

# A vertex of the cube is a number 0 … 7 whose bit i says whether latent coordinate i is +1; an edge along axis a is
# number 4 a + (the other two bits). A latent potion 2 · axis + direction sets the coordinate to -1 (0) or +1 (1).
VALUES = (-3, -1, -1, 1, -1, 1, 1, 15)  # of the vertices: sum of the coordinates, plus 12 if all are +1


STONES, POTIONS, COLOURS = 3, 12, 6


class Chemistry(NamedTuple):
    """The effects of potions on stones, and the appearance of both."""

    edges: Tensor  # (B, 12) bool: existing edges of the cube of latent stones
    potions: Tensor  # (B, 6) int64: the latent potion of each colour
    signs: Tensor  # (B, 3) int64, ±1: latent coordinate = sign · aligned coordinate
    rotation: Tensor  # (B,) int64, 0 … 3: how perceived features are rotated against aligned coordinates


class Table(NamedTuple):
    """The stones and potions on the table."""

    stones: Tensor  # (B, 3) int64: their vertices
    stones_used: Tensor  # (B, 3) bool: already in the cauldron
    colours: Tensor  # (B, 12) int64: of the potions, 0 … 5
    potions_used: Tensor  # (B, 12) bool


class Alchemy(TaskFamily[Chemistry, Table]):
    """Dip stones into potions with unknown effects, and cash in the valuable stones.

    Description:
        The symbolic version. Each episode has three stones and twelve potions, drawn uniformly. A stone is a vertex of
        a cube, with three hidden coordinates ±1; a potion moves it along one axis in one direction if the cube has that
        edge, and is used up in any case. A stone in the cauldron pays its value.

    What varies:
        The chemistry, `Chemistry`: one of 109 graphs (the cube's edges along an axis can be limited to where one or
        both of the other coordinates have certain values; the graphs are those in which all vertices stay connected,
        with 0, 1, 2 or 3 limits in total: 1 + 12 + 48 + 48), 48 potion maps (colour to axis and direction), 8 stone
        maps (signs) and 4 rotations of the stones' features.

    Splits:
        - `all`: as published: the number of limits uniform over 0 … 3, then the graph uniform among those with that
          number; maps and rotation uniform.
        - `train`, `test`: graphs with 0, 1 or 2 limits. The 384 pairs of a potion map and a stone map have a fixed
          partition: the first 77 of ``rng.permutation(rng.key(0), 384)`` are for test, the others for training.
        - `valid`: the training distribution, from its own random stream.
        - `ood`: the 48 graphs with 3 limits, which never occur in training, with the training pairs of maps.

    Actions:
        =============  ===================================================
        action         meaning
        =============  ===================================================
        0              nothing
        13 s + 1       put stone s (0 … 2) into the cauldron
        13 s + p + 2   dip stone s into potion p (0 … 11)
        =============  ===================================================
        Actions on a used stone or potion have no effect.

    Observations:
        =============  ===========================================  ==================  ====
        index          meaning                                      range               unit
        =============  ===========================================  ==================  ====
        5 s … 5 s + 2  perceived features of stone s                {-1, 0, 1}, 2 used  none
        5 s + 3        its displayed value: sum of coordinates / 3  [-1, 1], 2 used     none
        5 s + 4        1 if it is used                              {0, 1}              none
        15 + 2 p       colour / 3 - 1 of potion p                   [-1, 2/3], 1 used   none
        16 + 2 p       1 if it is used                              {0, 1}              none
        =============  ===========================================  ==================  ====

        Features with a 0 reveal the rotation, and features together with values reveal something about the signs, as
        published.

    Rewards:
        The value of a stone that is put into the cauldron: the sum of its coordinates, plus 12 if all are +1: -3, -1, 1
        or 15. Otherwise 0.

    Endings:
        Never terminated; truncated after 20 steps.

    Optimum:
        Known task: the expected value of the best plan, exact per graph; 28.840 on average over `all`
        (288.40 in 10 episodes), 29.764 over train and test, 26.068 over `ood`. Published for 10 episodes without
        knowledge of the task: ideal observer 284.4 ± 1.6, model-free agents 140 to 155.

    Source:
        Wang et al. 2021, "Alchemy: a benchmark and analysis toolkit for meta-reinforcement learning agents", and its
        published code.

    Version history:
        v0: first version.
    """

    noisy = False
    shows_task = True  # the stones' appearance reveals the rotation, as published

    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "test", "ood", "all")

    def __init__(self, episodes_per_trial: int = 10) -> None:
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        self.horizon = 20
        self.observation_space = gymnasium.spaces.Box(-1.0, 2.0, (5 * STONES + 2 * POTIONS,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(1 + STONES * (1 + POTIONS))

    def every_chemistry(self, split: str) -> Chemistry:
        """Return every chemistry of the split once (`all`: 167 424). Draws are not uniform over them: see Splits."""
        groups = _limits_of(split)
        parts = [torch.tensor([g for g, limits in enumerate(_number_of_limits()) if limits in groups]), _pairs(split)]
        graph, pair, rotation = torch.cartesian_prod(*parts, torch.arange(4)).unbind(-1)
        return _chemistry(graph, pair, rotation)

    def draw_tasks(self, keys: Key, split: str) -> Chemistry:
        device = keys.device
        groups = _limits_of(split)
        limits = torch.tensor(groups, device=device)[rng.integers(rng.fold(keys, 0), 1, len(groups))[:, 0]]
        counts = torch.tensor(_number_of_limits(), device=device).bincount(minlength=4)
        first, size = (counts.cumsum(0) - counts)[limits], counts[limits]
        graph = first + (rng.uniform(rng.fold(keys, 1), 1)[:, 0] * size).to(torch.int64).minimum(size - 1)
        pairs = _pairs(split).to(device)
        pair = pairs[rng.integers(rng.fold(keys, 2), 1, len(pairs))[:, 0]]
        return _chemistry(graph, pair, rng.integers(rng.fold(keys, 3), 1, 4)[:, 0])

    def check_task(self, task: Chemistry) -> None:
        within("Chemistry.potions", task.potions, 0, COLOURS - 1)
        within("Chemistry.rotation", task.rotation, 0, 3)
        possible(task.signs.abs() == 1, "Chemistry.signs must be 1 or -1.")

    def reset(self, task: Chemistry, key: Key) -> Table:
        stones = rng.integers(rng.fold(key, 0), STONES, 8)
        colours = rng.integers(rng.fold(key, 1), POTIONS, COLOURS)
        return Table(stones, torch.zeros_like(stones, dtype=torch.bool), colours, torch.zeros_like(colours).bool())

    def observe(self, task: Chemistry, state: Table) -> Tensor:
        value = _value_table(state.stones.device)[state.stones].clamp_max(3.0) / 3.0
        shown = torch.cat([perceived(task, state.stones), value[..., None]], dim=-1)
        stones = torch.where(state.stones_used[..., None], 2.0, shown)
        stones = torch.cat([stones, state.stones_used[..., None].to(torch.float32)], dim=-1)
        colours = torch.where(state.potions_used, 1.0, state.colours / 3.0 - 1.0)
        potions = torch.stack([colours, state.potions_used.to(torch.float32)], dim=-1)
        return torch.cat([stones.flatten(1), potions.flatten(1)], dim=-1)

    def step(self, task: Chemistry, state: Table, action: Tensor, key: Key) -> tuple[Table, Tensor, Tensor]:
        choice = (action - 1).clamp_min(0)
        slot, flask = (choice // (1 + POTIONS))[:, None], (choice % (1 + POTIONS) - 1)[:, None]
        stone = state.stones.gather(1, slot)
        able = (action > 0)[:, None] & ~state.stones_used.gather(1, slot)
        cashed = able & (flask < 0)
        flask = flask.clamp_min(0)
        dipped = able & ~cashed & ~state.potions_used.gather(1, flask)
        potion = task.potions.gather(1, state.colours.gather(1, flask))
        axis, direction = potion // 2, potion % 2
        moves = (
            dipped & task.edges.gather(1, _edge_table(action.device)[stone, axis]) & ((stone >> axis & 1) != direction)
        )
        after = Table(
            state.stones.scatter(1, slot, torch.where(moves, stone ^ (1 << axis), stone)),
            state.stones_used.scatter(1, slot, state.stones_used.gather(1, slot) | cashed),
            state.colours,
            state.potions_used.scatter(1, flask, state.potions_used.gather(1, flask) | dipped),
        )
        value = _value_table(action.device)[stone]
        return after, torch.where(cashed, value, 0.0)[:, 0], torch.zeros_like(action, dtype=torch.bool)

    def oracle(self, task: Chemistry) -> Tensor:
        powers = 2 ** torch.arange(12, device=task.edges.device)
        known = torch.zeros(4096, device=task.edges.device)
        known[(graphs().to(powers.device) * powers).sum(-1)] = torch.tensor(OPTIMA, device=powers.device)
        return known[(task.edges * powers).sum(-1)]

    def sketch(self, task: Chemistry, episodes: int = 1) -> Sketch[Table]:
        """One line per state, the stones' values and the potions (filled: left); next to it the cube and its edges."""
        return _Log(task, self.horizon, episodes)


WAYS = ("left", "right", "front", "back", "down", "up")  # of the latent potions, in the picture


PAINT = ("#e03131", "#1971c2", "#2f9e44", "#f08c00", "#9c36b5", "#0c8599")


def _draw_cube(draw: ImageDraw.ImageDraw, task: Chemistry) -> None:
    """Draw the latent cube with the values of its vertices, its existing edges, and the colour of each axis."""
    place = [(460 + 110 * (v & 1) + 50 * (v >> 1 & 1), 250 - 110 * (v >> 2) - 50 * (v >> 1 & 1)) for v in range(8)]
    for v, axis in itertools.product(range(8), range(3)):
        if not v >> axis & 1:
            exists = bool(task.edges[0, EDGE[v][axis]])
            draw.line((*place[v], *place[v | 1 << axis]), fill="black" if exists else "#e9ecef", width=2)
    for (x, y), value in zip(place, VALUES, strict=True):
        draw.ellipse((x - 13, y - 13, x + 13, y + 13), fill="#f1f3f5", outline="black")
        draw.text((x, y), str(value), fill="black", font_size=12, anchor="mm")
    for colour, potion in enumerate(task.potions[0].tolist()):
        x, y = 430 + 90 * (potion // 2), 290 + 18 * (potion % 2)
        draw.ellipse((x, y, x + 12, y + 12), fill=PAINT[colour])
        draw.text((x + 18, y - 1), WAYS[potion], fill="black", font_size=13)


class _Log(Sketch[Table]):
    """The table of the current episode, state by state, and the payments of the stones of all episodes."""

    LINE, LEFT, TOP, RIGHT = 16, 44, 54, 430  # pixels

    def __init__(self, task: Chemistry, horizon: int, episodes: int) -> None:
        self.episodes, self.sheet = episodes, Sheet(700, max(self.TOP + self.LINE * (horizon + 1) + 10, 400))
        self.sheet.ground.text((8, 30), "time   stones' values        potions", fill="black", font_size=14)
        _draw_cube(self.sheet.ground, task)
        self.paid: list[int] = []  # by episode
        self.time = 0
        self.before: Table | None = None

    def add(self, state: Table, first: bool = False) -> None:
        if first or not self.paid:
            self.sheet.clear()
            self.paid.append(0)
            self.time, self.before = 0, None
        pen, y = self.sheet.pen, self.TOP + self.LINE * self.time
        pen.text((10, y), str(self.time), fill="#666666", font_size=12)
        for i in range(STONES):
            value = VALUES[int(state.stones[0, i])]
            if not bool(state.stones_used[0, i]):
                fill = {-3: "#ffc9c9", -1: "#ffe3e3", 1: "#d3f9d8", 15: "#51cf66"}[value]
                x = self.LEFT + 34 * i
                pen.rectangle((x, y, x + 30, y + self.LINE - 3), fill=fill)
                pen.text((x + 5, y), f"{value:+d}", fill="black", font_size=12)
            elif self.before is not None and not bool(self.before.stones_used[0, i]):
                self.paid[-1] += value
        for i in range(POTIONS):
            x, colour = self.LEFT + 120 + 18 * i, PAINT[int(state.colours[0, i])]
            used = bool(state.potions_used[0, i])
            pen.ellipse((x, y, x + 12, y + 12), outline=colour, fill="white" if used else colour)
        self.time, self.before = self.time + 1, state

    def image(self) -> np.ndarray:
        image, draw = self.sheet.with_marks()
        number = max(len(self.paid), 1)
        if (most := max(self.episodes, number)) > 1:
            draw.text((8, 8), f"episode {number} of {most}", fill="black", font_size=14)
        draw.text((self.RIGHT, 336), "paid in each episode:" if most > 1 else "paid:", fill="black", font_size=13)
        shown = self.paid[-16:]
        for i in range(0, len(shown), 8):
            line = "  ".join(f"{paid:+d}" for paid in shown[i : i + 8])
            draw.text((self.RIGHT, 355 + 17 * (i // 8)), line, fill="black", font_size=13)
        return pixels(image)


def perceived(task: Chemistry, stones: Tensor) -> Tensor:
    """Return the perceived features of stones ``(B, n)``: float32 ``(B, n, 3)`` in {-1, 0, 1}."""
    latent = 2 * (stones[..., None] >> torch.arange(3, device=stones.device) & 1) - 1
    return (_unalign(stones.device)[task.rotation][:, None] * (latent * task.signs[:, None])[:, :, None]).sum(-1)


def _edge(vertex: int, axis: int) -> int:
    low = vertex & ((1 << axis) - 1)
    return 4 * axis + (low | vertex >> axis + 1 << axis)


EDGE = tuple(
    tuple(_edge(v, axis) for axis in range(3)) for v in range(8)
)  # the edge that leaves a vertex along an axis


@functools.cache
def _graphs_and_limits() -> tuple[tuple[tuple[bool, ...], ...], tuple[int, ...]]:
    """Return the edges of each graph and its number of constraints, sorted by that number."""
    found = []
    others = [[b for b in range(3) if b != axis] for axis in range(3)]
    for limits in itertools.product((None, 0, 1), repeat=6):
        needed = [list(zip(others[axis], limits[2 * axis : 2 * axis + 2], strict=True)) for axis in range(3)]

        def exists(v: int, axis: int, needed: list = needed) -> bool:
            return all(want is None or v >> other & 1 == want for other, want in needed[axis])

        reached, fresh = {0}, [0]
        while fresh:
            v = fresh.pop()
            near = {v ^ 1 << axis for axis in range(3) if exists(v, axis)} - reached
            reached |= near
            fresh += near
        if len(reached) == 8:
            corners = [[v for v in range(8) if not v >> axis & 1] for axis in range(3)]
            edges = tuple(exists(v, axis) for axis in range(3) for v in corners[axis])
            found.append((6 - limits.count(None), edges))
    found.sort(key=lambda graph: graph[0])
    return tuple(edges for _, edges in found), tuple(number for number, _ in found)


def graphs() -> Tensor:
    """Return the edges of the 109 graphs: (109, 12) bool."""
    return torch.tensor(_graphs_and_limits()[0])


def _number_of_limits() -> tuple[int, ...]:
    return _graphs_and_limits()[1]


def _limits_of(split: str) -> list[int]:
    return {"all": [0, 1, 2, 3], "ood": [3]}.get(split, [0, 1, 2])


def _pairs(split: str) -> Tensor:
    """Return the numbers 8 · potion map + stone map of a split."""
    order = rng.permutation(rng.key(0), 384)
    return {"all": order, "test": order[:77]}.get(split, order[77:]).sort().values


def _chemistry(graph: Tensor, pair: Tensor, rotation: Tensor) -> Chemistry:
    device = graph.device
    potion_map, stone_map = pair // 8, pair % 8
    order = torch.tensor(list(itertools.permutations(range(3))), device=device)[potion_map // 8]  # axis of each pair
    flips = potion_map[:, None] % 8 >> torch.arange(3, device=device) & 1
    axes = order.repeat_interleave(2, dim=1)
    potions = 2 * axes + (torch.arange(6, device=device) % 2 ^ flips.gather(1, axes))
    signs = 2 * (stone_map[:, None] >> torch.arange(3, device=device) & 1) - 1
    return Chemistry(graphs().to(device)[graph], potions, signs, rotation)


@functools.cache
def _unalign(device: torch.device) -> Tensor:
    """Perceived features from aligned coordinates: (4, 3, 3), none and -45° about each axis, scaled to -1, 0, 1."""
    turns = np.stack([np.eye(3, dtype=np.float32)] * 4)
    for turn, (i, j) in zip(turns[1:], ((0, 1), (2, 0), (1, 2)), strict=True):
        turn[i, i] = turn[j, i] = turn[j, j] = 0.5
        turn[i, j] = -0.5
    return torch.from_numpy(turns).to(device)


@functools.cache
def _edge_table(device: torch.device) -> Tensor:
    return torch.tensor(EDGE, device=device)


@functools.cache
def _value_table(device: torch.device) -> Tensor:
    return torch.tensor(VALUES, dtype=torch.float32, device=device)


# Expected value of the best plan on each graph, in the order of `graphs`: over all 8^3 · 6^12 equally likely tables,
# with the best choice of `agents.reference.cognitive.ways` for each; to five decimals. Graphs that are equal up to
# the names of the axes have the same value.
OPTIMA = (
    31.60619, 28.00160, 31.52961, 28.00160, 31.52961, 28.00160, 31.52961, 28.00160, 31.52961, 28.00160, 31.52961,
    28.00160, 31.52961, 25.48335, 27.95361, 27.95361, 31.45285, 23.35439, 27.89723, 27.88168, 31.45303, 23.35439,
    27.88168, 25.42760, 27.91985, 25.48335, 27.95361, 27.89723, 31.45303, 27.91985, 31.46087, 27.95361, 31.45285,
    23.35439, 27.89723, 25.42760, 27.91985, 23.35439, 27.88168, 27.88168, 31.45303, 27.91985, 31.46087, 27.89723,
    31.45303, 25.42760, 27.91985, 23.35439, 27.88168, 23.35439, 27.89723, 25.48335, 27.95361, 27.91985, 31.46087,
    27.89723, 31.45303, 27.88168, 31.45303, 27.95361, 31.45285, 23.27433, 25.37960, 21.06478, 27.75438, 23.27433,
    24.77869, 25.37960, 27.01131, 24.77869, 27.01131, 27.89723, 31.38411, 21.06478, 27.89723, 27.75438, 31.38411,
    23.27433, 21.06478, 25.37960, 27.75438, 24.77869, 27.89723, 27.01131, 31.38411, 23.27433, 21.06478, 25.37960,
    27.75438, 23.27433, 24.77869, 23.27433, 24.77869, 25.37960, 27.01131, 21.06478, 27.89723, 24.77869, 27.89723,
    27.01131, 31.38411, 21.06478, 27.89723, 25.37960, 27.01131, 27.75438, 31.38411, 27.75438, 31.38411,
)  # fmt: skip
