"""A point robot with a random start and a goal in a square."""

from __future__ import annotations

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.beliefs.belief import Belief
from metarl.core.beliefs.enumeration import Enumeration
from metarl.core.beliefs.places import Ground
from metarl.core.errors import unknown, whole_number
from metarl.core.family import Key, Sketch, TaskFamily
from metarl.envs.drawing.planes import Trail, draw_box, draw_goal, xy
from metarl.envs.points.expectations import norms, over_starts, walked
from metarl.envs.points.goal_beliefs import GoalByDistance, Region
from metarl.envs.points.plane import Goal, Point, ground_of_goals, moved, reach, step_space, uniform_in_ring


def pearl_goals() -> Tensor:
    """The 100 goals of PEARL's published code, float32 (100, 2) metres: 80 to train on, then 20 to test on."""
    return torch.from_numpy(np.random.RandomState(1337).uniform(-1.0, 1.0, (100, 2))).float()


class PointRobot(TaskFamily[Goal, Point]):
    """A point that starts anywhere in a square and must find a goal in it, guided only by the reward.

    Description:
        The point starts uniformly in [-1, 1)² m and moves by up to 0.1 m per axis and step. The reward is the negative
        distance to the goal, so three rewards determine where the goal is.

    What varies:
        The goal: `Goal.position`.

    Splits:
        - `train`, `valid`, `test`: goal ~ U[-1, 1)² m, in disjoint random streams.
        - `ood`: goal uniform over the square ring 1 ≤ max(|x|, |y|) < 1.5 m, outside the training square.

        With ``tasks="pearl"`` the goals are those of PEARL's published code, which draws 100 in sequence, x before y,
        from NumPy's uniform(-1, 1) with seed 1337: `train` has the first 80, `test` the last 20, and `valid` 26 of
        `train`.

    Actions:
        =====  ===============  ============  ======
        index  meaning          range         unit
        =====  ===============  ============  ======
        0      move along x     [-0.1, 0.1]   metres
        1      move along y     [-0.1, 0.1]   metres
        =====  ===============  ============  ======
        An action beyond the range is clipped to it.

    Observations:
        =====  ===============  ==============================  ======
        index  meaning          range                           unit
        =====  ===============  ==============================  ======
        0      x                ± (1 + 0.1 (horizon + 1))       metres
        1      y                ± (1 + 0.1 (horizon + 1))       metres
        =====  ===============  ==============================  ======

    Rewards:
        The negative Euclidean distance to the goal after the move.

    Endings:
        Never terminated; truncated after `horizon` steps.

    Optimum:
        Known task: full steps along each axis until the goal is reached; the expectation over the starts, exact per
        goal; -5.19 on average over `train`.

    Differs from the source:
        =====  ================================  ===============================================================
        what   here                              there
        =====  ================================  ===============================================================
        tasks  unlimited fresh goals; an option  100 goals, the same in every run: 80 to train on, 20 to test on
        =====  ================================  ===============================================================

    Source:
        Rakelly et al. 2019, "PEARL", in its published code (point-robot; 60 steps per evaluation, hence 3 episodes).

    Version history:
        v0: first version.
    """

    noisy = False

    def __init__(self, horizon: int = 20, episodes_per_trial: int = 3, tasks: str = "own") -> None:
        if tasks not in ("own", "pearl"):
            raise ValueError(unknown("tasks", tasks, ("own", "pearl")))
        self.tasks = tasks
        self.horizon = whole_number("horizon", horizon)
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        far = 1.0 + reach(horizon)
        self.observation_space = gymnasium.spaces.Box(-far, far, (2,), np.float32)
        self.action_space = step_space()

    def enumerate_tasks(self, split: str) -> Goal | None:
        if self.tasks == "own" or split == "ood":
            return None
        goals = pearl_goals()
        return Goal(goals[:80] if split == "train" else goals[-20:])

    def draw_tasks(self, keys: Key, split: str) -> Goal:
        if split == "ood":
            return Goal(uniform_in_ring(keys, inner=1.0, outer=1.5))
        return Goal(2.0 * rng.uniform(keys, 2) - 1.0)

    def reset(self, task: Goal, key: Key) -> Point:
        return Point(2.0 * rng.uniform(key, 2) - 1.0)

    def observe(self, task: Goal, state: Point) -> Tensor:
        return state.position

    def step(self, task: Goal, state: Point, action: Tensor, key: Key) -> tuple[Point, Tensor, Tensor]:
        position = moved(state, action)
        distance = (position - task.position).norm(dim=-1)
        return Point(position), -distance, torch.zeros_like(distance, dtype=torch.bool)

    def belief(self, split: str) -> Belief:
        """Exact for a list of tasks; else to within an arc (`GoalByDistance`)."""
        if self.num_tasks(split) is not None:
            return Enumeration(self, split)
        return GoalByDistance(Region(1.5, 1.0) if split == "ood" else Region(1.0))

    def ground(self, split: str) -> Ground:
        far = 1.6 if split == "ood" else 1.1
        return ground_of_goals((-far, -far), (far, far))

    def first_state(self, task: Goal, obs: Tensor) -> Point:
        return Point(obs)

    def oracle(self, task: Goal) -> Tensor:
        times = walked(self.horizon, task.position.device)

        def distances(a: Tensor, b: Tensor) -> Tensor:
            """Return ∫∫ of the remaining distance at each time over starts within a and b of the goal on the axes."""
            left_a, left_b = (a - times).clamp_min(0.0), (b - times).clamp_min(0.0)
            there_a, there_b = torch.minimum(a, times), torch.minimum(b, times)
            return norms(left_a, left_b) + 0.5 * (there_a * left_b**2 + there_b * left_a**2)

        return -over_starts(task.position, (-1.0, -1.0), (1.0, 1.0), distances).sum(-1).to(torch.float32)

    def sketch(self, task: Goal, episodes: int = 1) -> Sketch[Point]:
        """Draw the paths (darker over time), their starts, the goal and the training square."""
        goal = xy(task.position)
        return Trail(
            [(-1.1, -1.1), (1.1, 1.1), goal],
            self.horizon,
            lambda state: xy(state.position),
            under=lambda draw, pixel: draw_box(draw, pixel, (-1, -1), (1, 1), "starts and training goals"),
            over=lambda draw, pixel, state: draw_goal(draw, pixel, goal, 0.0),
        )
