"""The family of rulesets: XLand-MiniGrid's tasks (Nikulin et al. 2023), batched in torch."""

from __future__ import annotations

import functools

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.checks import possible, within
from metarl.core.errors import unknown, whole_number
from metarl.core.family import Key, Sketch, TaskFamily
from metarl.envs.rulesets import tiles
from metarl.envs.rulesets.bounds import most_return
from metarl.envs.rulesets.generator import PRESETS, draw, out_of_distribution
from metarl.envs.rulesets.pictures import RoomPicture
from metarl.envs.rulesets.room import Room, Ruleset
from metarl.envs.rulesets.rules import KINDS, SIDES, TILES, Scene, is_met, produce

VIEW = 5
"""Cells of the view in each direction."""
OWN = VIEW * VIEW - VIEW // 2 - 1
"""Index of the agent's own cell in its view: the middle of the last row."""
FORWARD, TURN_LEFT, TURN_RIGHT, PICK_UP, PUT_DOWN, TOGGLE = range(6)


class Rulesets(TaskFamily[Ruleset, Room]):
    """A room of coloured objects with a hidden goal, and hidden rules that turn objects into others.

    Description:
        Compositional tasks after XLand-MiniGrid: a ruleset is a goal, production rules, and initial tiles. The room of
        9 × 9 cells is surrounded by a wall and contains objects of seven shapes in ten colours; the agent can carry
        one. The condition of a goal or rule is one of eleven kinds: AgentHold, AgentNear and TileNear, the last two
        also with one of four directions. It is checked after the action that can bring it about: AgentHold(a) when a is
        picked up; AgentNear(a) after the action forward, even a blocked one, when a is next to the agent;
        TileNear(a, b) when one of them is put down next to the other. AgentNearUp(a) requires a above the agent,
        TileNearUp(a, b) requires b above a. When a rule's condition is met, its tile becomes another; of two tiles, the
        one that was put down changes and the other vanishes. Then the goal is checked. Objects of the shape goal lie in
        the floor: the agent walks over them and cannot pick them up.

        The options: `preset` sets the size of rulesets, `size` that of the room (6 … 13, including walls), `horizon`
        the number of steps (default: 3 · size²), `one_hot` the form of observations. A trial has three episodes: one to
        find the goal, and two that show whether it is remembered when positions change. Its 729 steps are already long
        for a policy with memory.

    What varies:
        The goal, `Ruleset.goal`; the rules, `Ruleset.rules`; and the initial tiles, `Ruleset.tiles`. The positions of
        tiles and agent are redrawn in each episode. Rulesets are drawn as trees, backwards from the goal: a needed tile
        is either initial or the product of a rule, whose tiles are then needed; a branch ends at the preset's depth, or
        earlier with the preset's pruning probability. No object is needed twice, so every ruleset can be solved.

        =======  =====  =====  =================  =================
        preset   depth  prune  distracting rules  distracting tiles
        =======  =====  =====  =================  =================
        trivial  0      -      0                  3
        small    1      0.3    2                  2
        medium   2      0.1    3                  2
        high     3      0.1    4                  1
        =======  =====  =====  =================  =================

    Splits:
        - `train`, `test`: combinations of a kind of condition with its object or its unordered pair of objects have a
          fixed partition: a fifth of them belong to `test`, the others to `train`. Mirrored kinds (TileNearUp and
          TileNearDown, TileNearRight and TileNearLeft) count as one. The goal and all rules that it needs are
          combinations of their split; distracting rules and tiles are arbitrary. So `test` shows known kinds, shapes,
          colours and objects, in combinations that never occur in training. In `trivial`, which has no rules, the
          combination is that of the goal: its kind with the shapes and colours of its objects.
        - `valid`: the training distribution, from its own random stream.
        - `ood`: the training combinations in rulesets of the next preset, with at least one tree of its full depth,
          deeper than any in training; for `high`, a chain of four rules.

    Actions:
        ======  ======================================================
        action  meaning
        ======  ======================================================
        0       forward, if the cell ahead is floor or has a goal tile
        1       turn left
        2       turn right
        3       pick up the object ahead, with an empty hand
        4       put down what is held onto the floor ahead
        5       toggle: no effect, since there are no doors
        ======  ======================================================

    Observations:
        The 5 × 5 cells ahead, row by row from the far left; the agent is in the middle of the last row, where the
        object it holds is shown. Cells beyond the wall appear as wall. A cell is 18 zeros and ones; floor is all zeros:

        ===================  ==========================================  ======  =====
        index                meaning                                     range   unit
        ===================  ==========================================  ======  =====
        18 i                 cell i is wall                              {0, 1}  none
        18 i + 1 … 18 i + 7  ball, square, pyramid, key, star, hex, goal  {0, 1}  none
        18 i + 8 … 18 i + 17  red, green, blue, purple, yellow, grey,     {0, 1}  none
                              white, brown, pink, orange
        450 … 453            the agent looks up, right, down, left       {0, 1}  none
        ===================  ==========================================  ======  =====
        This form suits networks with plain inputs. With `one_hot=False`, an observation is an array (5, 5, 2) of
        numbers: the tile (0 floor, 1 wall, 2 … 8 the shapes) and the colour (0 none, 1 … 10), for encoders with
        embeddings; it does not say where the agent looks.

        The visible objects are part of the task, so the first observation reveals something about it (`shows_task`),
        but not the goal: any of them may be the one that matters.

    Rewards:
        1 - 0.9 · t / horizon when the goal is reached with step t, otherwise 0.

    Endings:
        Terminated when the goal is reached; truncated after `horizon` steps, by default 243.

    Optimum:
        Known ruleset and positions: at most 0.970 on average over `trivial`, by shortest paths in a room without other
        objects, exact per kind of goal; with rules, `oracle` is 1 - 0.9 / horizon, a bound that no agent reaches. A
        scripted player that knows the ruleset but must look for the objects: 0.941 ± 0.005 in `trivial`, 0.911 ± 0.009
        in `small` and 0.838 ± 0.018 in `medium` (1,000, 400 and 300 tasks of `test`, first episodes). Random, for which
        no formula is known: 0.117 ± 0.004 in `trivial`, where 19 % of the episodes reach the goal (20,000 tasks of
        `train`), 0.065 ± 0.006 in `small`, 0.021 ± 0.003 in `medium`, and 0.016 ± 0.003 in `high` (5,000 tasks each;
        95 % intervals).

    Differs from the source:
        ============  ===============================================  ===========================
        what          here                                             there
        ============  ===============================================  ===========================
        tasks         drawn from a key                                 downloaded benchmarks
        rules         the first whose condition is met, once per step  all, one after the other
        observations  ones and zeros, with the agent's direction       numbers for tile and colour
        layout        one room                                         one to nine rooms
        splits        combinations held out                            rulesets held out, or goals
        ============  ===============================================  ===========================

    Source:
        Nikulin et al. 2023, "XLand-MiniGrid: scalable meta-reinforcement learning environments in JAX".

    Version history:
        v0: first version.
    """

    terminates = True
    noisy = False
    shows_task = True  # the first observation shows the objects, but not the goal
    action_names = ("forward", "turn left", "turn right", "pick up", "put down", "toggle")

    def __init__(
        self,
        preset: str = "trivial",
        size: int = 9,
        horizon: int | None = None,
        episodes_per_trial: int = 3,
        one_hot: bool = True,
    ) -> None:
        if preset not in PRESETS:
            raise ValueError(unknown("preset", preset, PRESETS, where=" of Rulesets"))
        self.preset, self.size, self.one_hot = preset, whole_number("size", size, 6), one_hot
        own, other = PRESETS[preset], out_of_distribution(preset)
        self.most_rules = max(own.most_rules, other.most_rules)
        self.most_tiles = max(own.most_tiles, other.most_tiles)
        least = next(n for n in range(6, 14) if (n - 2) ** 2 > 2 * self.most_tiles)
        if not least <= size <= 13:
            raise ValueError(f"size must be from {least} to 13 for the preset {preset!r}, got {size}.")
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        self.horizon = 3 * size**2 if horizon is None else whole_number("horizon", horizon)
        self.observation_space = self._observed()
        self.action_space = gymnasium.spaces.Discrete(6)

    def _observed(self) -> gymnasium.spaces.Box:
        if self.one_hot:
            return gymnasium.spaces.Box(0.0, 1.0, (VIEW * VIEW * tiles.FEATURES + 4,), np.float32)
        most = tiles.pairs(torch.device("cpu")).amax(0).numpy()
        high = np.broadcast_to(most, (VIEW, VIEW, 2)).astype(np.float32)
        return gymnasium.spaces.Box(np.zeros_like(high), high, dtype=np.float32)

    def draw_tasks(self, keys: Key, split: str) -> Ruleset:
        preset = out_of_distribution(self.preset) if split == "ood" else PRESETS[self.preset]
        return Ruleset(*draw(keys, preset, split == "test", self.most_rules, self.most_tiles))

    def check_task(self, task: Ruleset) -> None:
        last = tiles.NUMBERS - 1
        within("Ruleset.goal", task.goal, 0, last)
        within("Ruleset.rules", task.rules, 0, last)
        within("Ruleset.tiles", task.tiles, 0, last)
        goal, rules = task.goal, task.rules
        possible((goal[:, 0] > 0) & (goal[:, 0] < len(KINDS)), "The kind of a goal must be from 1 to 11.")
        possible(rules[..., 0] < len(KINDS), "The kind of a rule must be from 0 to 11.")
        possible(task.tiles != tiles.WALL, "Ruleset.tiles must not hold walls.")
        a, b = goal[:, 1] >= tiles.FIRST, (goal[:, 2] >= tiles.FIRST) | (goal[:, 0] < TILES)
        possible(a & b, "The tiles of a goal must be objects, from 2 to 71.")
        there = rules[..., 0] > 0
        right = (rules[..., 1] >= tiles.FIRST) & ((rules[..., 2] >= tiles.FIRST) | (rules[..., 0] < TILES))
        possible(~there | (right & (rules[..., 3] != tiles.WALL)), "The tiles of a rule must be objects, from 2 to 71.")

    def reset(self, task: Ruleset, key: Key) -> Room:
        inside = _inside(self.size, key.device)
        # 64-bit integers have no ties, so that the order is the same on every device.
        order = rng.fold(rng.fold(key, 0)[:, None], inside).topk(self.most_tiles + 1, dim=1).indices
        cells = inside[order]  # (B, O + 1): the last one is the agent's
        grid = _walls(self.size, key.device).expand(len(key), -1).scatter(1, cells[:, :-1], task.tiles)
        nothing = torch.zeros_like(key)
        way = rng.integers(rng.fold(key, 1), 1, 4)[:, 0]
        return Room(grid, cells[:, -1], way, nothing, nothing, nothing.to(torch.bool))

    def observe(self, task: Ruleset, state: Room) -> Tensor:
        device = state.grid.device
        seen = state.grid.gather(1, _views(self.size, device)[state.position, state.direction])
        seen = torch.cat([seen[:, :OWN], state.held[:, None], seen[:, OWN + 1 :]], dim=1)  # (B, 25)
        if not self.one_hot:
            return tiles.pairs(device)[seen].reshape(-1, VIEW, VIEW, 2)
        looks = _compass(device)[state.direction]
        return torch.cat([tiles.one_hot(device)[seen].flatten(1), looks], dim=1)

    def observation_text(self, obs: Tensor) -> str:
        """Return the names of the visible tiles, row by row, and of the held tile."""
        table = (tiles.one_hot if self.one_hot else tiles.pairs)(obs.device)
        shown = obs[: VIEW * VIEW * tiles.FEATURES] if self.one_hot else obs
        seen = (shown.reshape(VIEW * VIEW, 1, -1) == table).all(-1).to(torch.int64).argmax(-1)
        names = [tiles.tile_name(number) for number in seen.tolist()]
        held = "nothing" if names[OWN] == "floor" else f"the {names[OWN]}"
        names[OWN] = "you"
        looks = f"You look {SIDES[int(obs[-4:].argmax())].lower()} and hold" if self.one_hot else "You hold"
        lines = [", ".join(names[at : at + VIEW]) for at in range(0, VIEW * VIEW, VIEW)]
        return "\n".join([*lines, f"{looks} {held}."])

    def step(self, task: Ruleset, state: Room, action: Tensor, key: Key) -> tuple[Room, Tensor, Tensor]:
        beside = _beside(self.size, action.device)  # (5,): up, right, down, left, and the cell itself
        front = state.position + beside[state.direction]
        ahead = state.grid.gather(1, front[:, None])[:, 0]
        forward = action == FORWARD
        taken = (action == PICK_UP) & tiles.can_be_held(ahead) & (state.held == 0)
        put = (action == PUT_DOWN) & (ahead == tiles.FLOOR) & (state.held > 0)
        position = torch.where(forward & tiles.can_be_walked_on(ahead), front, state.position)
        turn = (action == TURN_RIGHT).to(torch.int64) - (action == TURN_LEFT).to(torch.int64)
        left = torch.where(taken, tiles.FLOOR, torch.where(put, state.held, ahead))
        held = torch.where(taken, ahead, torch.where(put, 0, state.held))
        grid = state.grid.scatter(1, front[:, None], left[:, None])

        cells = torch.where(put, front, position)[:, None] + beside  # (B, 5)
        near = grid.gather(1, cells)
        here = near[:, 4]
        scene = produce(task.rules, Scene(held, torch.where(put, here, -1), near[:, :4], taken, forward))
        here = torch.where(put, scene.here, here)
        grid = grid.scatter(1, cells, torch.cat([scene.around, here[:, None]], dim=1))
        reached, time = is_met(task.goal, scene), state.time + 1
        after = Room(grid, position, (state.direction + turn) % 4, scene.held, time, reached)
        return after, torch.where(reached, 1.0 - 0.9 / self.horizon * time, 0.0), reached

    def success(self, task: Ruleset, state: Room) -> Tensor:
        return state.reached

    def oracle(self, task: Ruleset) -> Tensor:
        bound = most_return(self.size - 2, self.horizon, task.goal.device)[task.goal[:, 0]]
        return torch.where((task.rules[..., 0] > 0).any(-1), 1.0 - 0.9 / self.horizon, bound)

    def sketch(self, task: Ruleset, episodes: int = 1) -> Sketch[Room]:
        """Draw the room with its objects and the agent's path; next to it, the goal and the rules."""
        return RoomPicture(task.goal[0].tolist(), task.rules[0].tolist(), self.size, self.horizon, episodes)


@functools.cache
def _inside(size: int, device: torch.device) -> Tensor:
    """Return the cells inside the wall."""
    return torch.tensor([size * y + x for y in range(1, size - 1) for x in range(1, size - 1)], device=device)


@functools.cache
def _walls(size: int, device: torch.device) -> Tensor:
    """Return an empty room: int64 (size · size,)."""
    grid = torch.full((size * size,), tiles.WALL)
    grid[_inside(size, torch.device("cpu"))] = tiles.FLOOR
    return grid.to(device)


@functools.cache
def _beside(size: int, device: torch.device) -> Tensor:
    """Return the offsets of a cell's index to the cells up, right, down and left of it, and to itself."""
    return torch.tensor([-size, 1, size, -1, 0], device=device)


@functools.cache
def _compass(device: torch.device) -> Tensor:
    return torch.eye(4, device=device)


@functools.cache
def _views(size: int, device: torch.device) -> Tensor:
    """Return the visible cells by the agent's cell and direction, row by row from the far left: (cells, 4, 25)."""
    steps = ((0, -1), (1, 0), (0, 1), (-1, 0))  # up, right, down, left
    found = torch.zeros(size * size, 4, VIEW * VIEW, dtype=torch.int64)
    for y in range(size):
        for x in range(size):
            for way in range(4):
                (ax, ay), (rx, ry) = steps[way], steps[(way + 1) % 4]
                for i in range(VIEW * VIEW):
                    ahead, right = VIEW - 1 - i // VIEW, i % VIEW - VIEW // 2
                    # Cells beyond the wall count as wall.
                    column = min(max(x + ahead * ax + right * rx, 0), size - 1)
                    line = min(max(y + ahead * ay + right * ry, 0), size - 1)
                    found[size * y + x, way, i] = size * line + column
    return found.to(device)
