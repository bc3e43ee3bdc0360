"""The ant with a goal: a direction, a speed or a place. MuJoCo's model and starts are those of Gymnasium's v5."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.errors import short
from metarl.core.family import Key, Sketch
from metarl.envs.drawing.planes import xy
from metarl.envs.mujoco.goals import Heading, Place, Velocity, along_x, unit_vectors
from metarl.envs.mujoco.pictures import from_above, speed_view
from metarl.envs.mujoco.robots import Robot, RobotFamily, between, effort, never, torso_place
from metarl.envs.mujoco.simulator import Physics

CONTACT_COST = 0.0005
CONTACTS = 14 * 6  # forces and torques of contact, clipped to ±1, of 13 bodies and the world
GOAL_RADIUS = 0.75  # metres: how near AntGoalSparse pays


def ant(hidden: int = 2, show_contacts: bool = False) -> Robot:
    """Gymnasium's Ant-v5; its `reading` ends with the torso's place (2) and the sum of squares of contact forces.

    Its place in the world is not observed, unless `hidden` is 0, nor are the forces of contact (84), unless asked for.
    """
    reading, shown = (contacts_and_place, CONTACTS) if show_contacts else (place_and_contact, 0)
    return Robot("ant.xml", 5, noise=0.1, hidden=hidden, gaussian=True, reading=reading, shown=shown)


def contacts(data: Any) -> np.ndarray:
    """The clipped forces and torques of contact of each body, (14, 6)."""
    return np.clip(data.cfrc_ext, -1.0, 1.0)


def place_and_contact(model: Any, data: Any) -> np.ndarray:
    """The torso's place as Gymnasium's Ant-v5 sees it, and its contact cost but for the weight."""
    return np.append(data.xpos[1, :2], np.square(contacts(data)).sum())


def contacts_and_place(model: Any, data: Any) -> np.ndarray:
    """The forces of contact, and what else there is to read."""
    return np.append(contacts(data), place_and_contact(model, data))


def torso_and_contacts(model: Any, data: Any) -> np.ndarray:
    """The torso's place (3), the forces of contact, and what else there is to read."""
    return np.append(torso_place(model, data), contacts_and_place(model, data))


def place(physics: Physics) -> Tensor:
    """The torso's place (B, 2), float64."""
    return physics.reading[:, -3:-1]


def walked(robot: Robot, state: Physics, after: Physics) -> Tensor:
    """Mean velocity (B, 2) in m/s between two actions."""
    return ((place(after) - place(state)) / robot.dt).float()


def contact_cost(after: Physics) -> Tensor:
    """Gymnasium's contact cost (B,)."""
    return CONTACT_COST * after.reading[:, -1].float()


def fallen(after: Physics, lowest: float = 0.2) -> Tensor:
    """True where the torso's height has left [lowest, 1] m: bool (B,)."""
    height = after.state[:, 3]
    return ~((height >= lowest) & (height <= 1.0))  # so that a height that is no number counts, too


def checked_height(height: float) -> float:
    """Return a `min_height`. Raises ValueError if it is no number from 0 to below 0.75 m, where an ant starts."""
    if isinstance(height, bool) or not isinstance(height, int | float) or not 0.0 <= height < 0.75:
        raise ValueError(f"min_height must be from 0 to below 0.75 (metres), got {short(height)}.")
    return float(height)


class AntDir(RobotFamily[Heading]):
    """A four-legged robot that must walk forwards or backwards, which only the reward tells. Needs MuJoCo.

    Description:
        Ant of Gymnasium's v5, 20 actions a second. It starts as there: U[-0.1, 0.1) is added to the positions and
        0.1 · N(0, 1) to the velocities.

    What varies:
        The direction along x: `Heading.direction`.

    Splits:
        - `train`, `all`: both directions with probability 1/2 each. There are only two tasks, so none is left to test
          on: `AntDir2D` has held-out ones.
        - `valid`: both directions too.

    Actions:
        =====  =================================================  ==========  ====
        index  meaning                                            range       unit
        =====  =================================================  ==========  ====
        0 … 7  motors of hip and ankle of each leg: back right,   [-1, 1]     gear
               front left, front right, back left
        =====  =================================================  ==========  ====
        An action beyond the range is clipped to it.

    Observations:
        ========  =========================================  =========  ===========
        index     meaning                                    range      unit
        ========  =========================================  =========  ===========
        0         height of the torso                        unbounded  m
        1 … 4     its orientation, a quaternion              unbounded  none
        5 … 12    angles of the eight joints                 unbounded  rad
        13 … 18   speeds and angular speeds of the torso     unbounded  m/s, rad/s
        19 … 26   speeds of the joints                       unbounded  rad/s
        ========  =========================================  =========  ===========
        Those of Gymnasium's v5 without the forces of contact. With ``show_contacts=True`` these, too, clipped to ±1: 84
        more, six for each of 13 bodies and the world.

    Rewards:
        ⟨v, direction⟩ - 0.5 ‖action‖² - 0.0005 Σ clip(force of contact, ±1)² + 1, with v the torso's mean velocity
        since the last action and the forces as in Gymnasium's v5.

    Endings:
        Terminated when the torso's height leaves [`min_height`, 1] m, `min_height` being 0.2 m; truncated after
        `horizon` steps.

    Optimum:
        Not known.

    Differs from the source:
        ======================  =============================================  =========================================
        what                    here                                           there
        ======================  =============================================  =========================================
        time between actions    0.05 s, as PEARL                               MAML: 0.02 s
        velocity in the reward  of the torso, mean over the step, as PEARL     MAML: of the whole body's centre of mass,
                                                                               after it
        cost of actions         0.5 ‖action‖², as PEARL                        MAML: 0.005 ‖action‖²
        reward for being up     1, as PEARL                                    MAML: 0.05
        observations            27 numbers, as PEARL                           MAML: 125, with the place and the forces
                                                                               of contact
        start                   0.75 m high, positions U[-0.1, 0.1), as PEARL  MAML: 0.55 m high on bent legs, positions
                                                                               0.01 · N(0, 1)
        ======================  =============================================  =========================================

    Source:
        Finn, Abbeel & Levine 2017, "MAML", section 5.3 (forward/backward), as in Rakelly et al. 2019, "PEARL".
        `AntDirMAML` is MAML's own. With ``min_height=0, show_contacts=True`` it is that of Rothfuss et al. 2019,
        "ProMP" (AntRandDirec).

    Version history:
        v0: first version.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "all")
    terminates = True

    def __init__(
        self,
        horizon: int = 200,
        episodes_per_trial: int = 2,
        min_height: float = 0.2,
        show_contacts: bool = False,
    ) -> None:
        self.min_height, self.show_contacts = checked_height(min_height), show_contacts
        super().__init__(ant(show_contacts=show_contacts), horizon, episodes_per_trial)

    def enumerate_tasks(self, split: str) -> Heading:
        return along_x()

    def step(self, task: Heading, state: Physics, action: Tensor, key: Key) -> tuple[Physics, Tensor, Tensor]:
        return walk(self.robot, task, state, action, self.min_height)

    def sketch(self, task: Heading, episodes: int = 1) -> Sketch[Physics]:
        """The path from above, with the ant and an arrow in the wanted direction."""
        return from_above(self.robot, self.horizon, direction=xy(task.direction))


class AntDir2D(RobotFamily[Heading]):
    """A four-legged robot that must walk in a direction of the plane which only the reward tells. Needs MuJoCo.

    Description:
        As `AntDir`, in any direction.

    What varies:
        The direction: `Heading.direction`.

    Splits:
        - `train`, `valid`, `test`: angle ~ U[0, 2π), in disjoint streams, and there is no `ood`. With
          ``half_circle=True`` angle ~ U[0, π), and
        - `ood`: angle ~ U[π, 2π).

    Actions:
        =====  =================================================  ==========  ====
        index  meaning                                            range       unit
        =====  =================================================  ==========  ====
        0 … 7  motors of hip and ankle of each leg: back right,   [-1, 1]     gear
               front left, front right, back left
        =====  =================================================  ==========  ====
        An action beyond the range is clipped to it.

    Observations:
        Those of `AntDir`: height, orientation (quaternion) and eight joint angles, then the speeds. 27 numbers in m,
        rad, m/s and rad/s, unbounded. With ``show_contacts=True`` the forces of contact, too, clipped to ±1: 111.

    Rewards:
        ⟨v, direction⟩ - 0.5 ‖action‖² - 0.0005 Σ clip(force of contact, ±1)² + 1, as `AntDir`.

    Endings:
        Terminated when the torso's height leaves [`min_height`, 1] m, `min_height` being 0.2 m; truncated after
        `horizon` steps.

    Optimum:
        Not known.

    Differs from the source:
        ===========================  ====================================  ======================================
        what                         here                                  there
        ===========================  ====================================  ======================================
        height that ends an episode  outside [0.2, 1] m; an option         outside [0, 1] m
        observations                 27 numbers, no forces of contact; an  111 numbers, 84 of them forces of
                                     option                                contact
        ===========================  ====================================  ======================================

    Source:
        Rothfuss et al. 2019, "ProMP" (AntRandDirec2D): ``min_height=0, show_contacts=True``. Of its other families,
        SwimmerRandVel is not here: its published code pays for the difference from the wanted speed instead of
        charging for it, the reward's sign is wrong.

    Version history:
        v0: first version.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "test")
    terminates = True

    def __init__(
        self,
        half_circle: bool = False,
        horizon: int = 200,
        episodes_per_trial: int = 2,
        min_height: float = 0.2,
        show_contacts: bool = False,
    ) -> None:
        self.half_circle = half_circle
        self.min_height, self.show_contacts = checked_height(min_height), show_contacts
        if half_circle:
            self.splits = ("train", "valid", "test", "ood")  # type: ignore[misc]  # what splits there are depends on the option
        super().__init__(ant(show_contacts=show_contacts), horizon, episodes_per_trial)

    def draw_tasks(self, keys: Key, split: str) -> Heading:
        if not self.half_circle:
            return Heading(unit_vectors(between(keys, 0.0, 2.0 * math.pi)))
        upper = unit_vectors(between(keys, 0.0, math.pi))
        return Heading(-upper if split == "ood" else upper)

    def step(self, task: Heading, state: Physics, action: Tensor, key: Key) -> tuple[Physics, Tensor, Tensor]:
        return walk(self.robot, task, state, action, self.min_height)

    def sketch(self, task: Heading, episodes: int = 1) -> Sketch[Physics]:
        """The path from above, with the ant and an arrow in the wanted direction."""
        return from_above(self.robot, self.horizon, direction=xy(task.direction))


class AntVel(RobotFamily[Velocity]):
    """A four-legged robot that must walk at a speed which only the reward tells. Needs MuJoCo.

    Description:
        Ant of Gymnasium's v5, 20 actions a second, as `AntDir`.

    What varies:
        The wanted speed along x: `Velocity.velocity`.

    Splits:
        - `train`, `valid`, `test`: speed ~ U[0, 3) m/s, in disjoint streams.
        - `ood`: speed ~ U[3, 4) m/s.

    Actions:
        =====  =================================================  ==========  ====
        index  meaning                                            range       unit
        =====  =================================================  ==========  ====
        0 … 7  motors of hip and ankle of each leg: back right,   [-1, 1]     gear
               front left, front right, back left
        =====  =================================================  ==========  ====
        An action beyond the range is clipped to it.

    Observations:
        Those of `AntDir`: height, orientation (quaternion) and eight joint angles, then the speeds. 27 numbers in m,
        rad, m/s and rad/s, unbounded.

    Rewards:
        1 - |v - wanted| - 0.005 ‖action‖² - 0.0005 Σ clip(force of contact, ±1)² + 0.05, with v the torso's mean speed
        along x since the last action.

    Endings:
        Terminated when the torso's height leaves [0.2, 1] m; truncated after `horizon` steps.

    Optimum:
        Not known. At most 1.05 a step.

    Differs from the source:
        ====================  ===================================  ==================================================
        what                  here                                 there
        ====================  ===================================  ==================================================
        time between actions  0.05 s                               0.02 s
        speed in the reward   of the torso, mean over the step     of the whole body's centre of mass, after it
        observations          27 numbers                           125, with the place and the forces of contact
        start                 0.75 m high, positions U[-0.1, 0.1)  0.55 m high on bent legs, positions 0.01 · N(0, 1)
        ====================  ===================================  ==================================================

    Source:
        Finn, Abbeel & Levine 2017, "MAML", section 5.3 (ant, goal velocity), whose own time steps are `AntVelMAML`.

    Version history:
        v0: first version.
    """

    terminates = True

    def __init__(self, horizon: int = 200, episodes_per_trial: int = 2) -> None:
        super().__init__(ant(), horizon, episodes_per_trial)

    def draw_tasks(self, keys: Key, split: str) -> Velocity:
        return Velocity(between(keys, 3.0, 4.0) if split == "ood" else between(keys, 0.0, 3.0))

    def step(self, task: Velocity, state: Physics, action: Tensor, key: Key) -> tuple[Physics, Tensor, Tensor]:
        action = self.robot.clipped(action)
        after = self.robot.move(state, action)
        speed = walked(self.robot, state, after)[:, 0]
        reward = 1.05 - (speed - task.velocity).abs() - 0.005 * effort(action) - contact_cost(after)
        return after, reward, fallen(after)

    def sketch(self, task: Velocity, episodes: int = 1) -> Sketch[Physics]:
        """Poses from the side, and the speed over time with the wanted one."""
        return speed_view(self.robot, self.horizon, task.velocity)


class AntGoal(RobotFamily[Place]):
    """A four-legged robot that must walk to a place which only the reward tells. Needs MuJoCo.

    Description:
        Ant of Gymnasium's v5, 20 actions a second, as `AntDir`. It may fall: the episode goes on.

    What varies:
        The place: `Place.position`.

    Splits:
        - `train`: 150 tasks, uniform over the disc of radius 3 m, drawn once (``train_tasks=None``: fresh ones without
          end).
        - `test`: 30 others, drawn once (``test_tasks=None``: fresh ones).
        - `valid`: fresh tasks of training's distribution.
        - `ood`: angle uniform, radius ~ U[3, 4) m.

    Actions:
        =====  =================================================  ==========  ====
        index  meaning                                            range       unit
        =====  =================================================  ==========  ====
        0 … 7  motors of hip and ankle of each leg: back right,   [-1, 1]     gear
               front left, front right, back left
        =====  =================================================  ==========  ====
        An action beyond the range is clipped to it.

    Observations:
        ========  =========================================  =========  ===========
        index     meaning                                    range      unit
        ========  =========================================  =========  ===========
        0 … 1     place of the torso                         unbounded  m
        2         height of the torso                        unbounded  m
        3 … 6     its orientation, a quaternion              unbounded  none
        7 … 14    angles of the eight joints                 unbounded  rad
        15 … 20   speeds and angular speeds of the torso     unbounded  m/s, rad/s
        21 … 28   speeds of the joints                       unbounded  rad/s
        ========  =========================================  =========  ===========
        Those of `AntDir` and the place, without which an ant could not tell where it has been paid. With
        ``show_contacts=True`` the forces of contact, too, clipped to ±1: 113 numbers.

    Rewards:
        -‖place - wanted‖₁ - 0.1 ‖action‖² - 0.0005 Σ clip(force of contact, ±1)², with the torso's place after the
        step.

    Endings:
        Never terminated; truncated after `horizon` steps.

    Optimum:
        Not known. Below 0 by what the way there costs.

    Differs from the source:
        ============  ====================================  =========================================
        what          here                                  there
        ============  ====================================  =========================================
        observations  29 numbers, no forces of contact; an  113 numbers, 84 of them forces of contact
                      option
        tasks         150 and 30, always the same           as many, drawn at each start
        ============  ====================================  =========================================

    Source:
        Rakelly et al. 2019, "PEARL" (ant-goal; 150 and 30 tasks).

    Version history:
        v0: first version.
    """

    def __init__(
        self,
        horizon: int = 200,
        episodes_per_trial: int = 2,
        train_tasks: int | None = 150,
        test_tasks: int | None = 30,
        show_contacts: bool = False,
    ) -> None:
        self.show_contacts = show_contacts
        super().__init__(ant(0, show_contacts), horizon, episodes_per_trial, train_tasks, test_tasks)

    def draw_tasks(self, keys: Key, split: str) -> Place:
        return around(keys, split)

    def step(self, task: Place, state: Physics, action: Tensor, key: Key) -> tuple[Physics, Tensor, Tensor]:
        action = self.robot.clipped(action)
        after = self.robot.move(state, action)
        away = (place(after).float() - task.position).abs().sum(-1)
        return after, -away - 0.1 * effort(action) - contact_cost(after), never(away)

    def sketch(self, task: Place, episodes: int = 1) -> Sketch[Physics]:
        """The path from above, with the ant and the wanted place."""
        return from_above(self.robot, self.horizon, goal=xy(task.position))


class AntGoalSparse(RobotFamily[Place]):
    """A four-legged robot that must find a place and is paid only near it. Needs MuJoCo.

    Description:
        Ant of Gymnasium's v5, 20 actions a second, as `AntGoal`, but only within 0.75 m of the place the reward tells
        how far it is. The ant may fall: the episode goes on.

    What varies:
        The place: `Place.position`.

    Splits:
        - `train`, `valid`, `test`: uniform over the disc of radius 3 m, in disjoint streams.
        - `ood`: angle uniform, radius ~ U[3, 4) m.

    Actions:
        =====  =================================================  ==========  ====
        index  meaning                                            range       unit
        =====  =================================================  ==========  ====
        0 … 7  motors of hip and ankle of each leg: back right,   [-1, 1]     gear
               front left, front right, back left
        =====  =================================================  ==========  ====
        An action beyond the range is clipped to it.

    Observations:
        =========  ================================================  =========  ===========
        index      meaning                                           range      unit
        =========  ================================================  =========  ===========
        0 … 28     those of `AntGoal`: place, height, orientation,   unbounded  m, none,
                   joint angles, speeds                                         rad, m/s,
                                                                                rad/s
        29 … 31    the torso's place 0.01 s before                   unbounded  m
        32 … 115   forces and torques of contact on the world and    [-1, 1]    N, N m
                   13 bodies, clipped
        =========  ================================================  =========  ===========

    Rewards:
        With d the Euclidean distance of the torso from the place after the step: 1 - d where d ≤ 0.75 m, otherwise
        -0.75; then -0.01 ‖action‖² - 0.0005 Σ clip(force of contact, ±1)².

    Endings:
        Never terminated; truncated after `horizon` steps.

    Optimum:
        Not known. Below 1 a step.

    Source:
        Zintgraf et al. 2021, "HyperX" (sparse AntGoal), in its published code.

    Version history:
        v0: first version.
    """

    def __init__(self, horizon: int = 200, episodes_per_trial: int = 2) -> None:
        robot = Robot("ant.xml", 5, noise=0.1, hidden=0, gaussian=True, reading=torso_and_contacts, shown=3 + CONTACTS)
        super().__init__(robot, horizon, episodes_per_trial)

    def draw_tasks(self, keys: Key, split: str) -> Place:
        return around(keys, split)

    def step(self, task: Place, state: Physics, action: Tensor, key: Key) -> tuple[Physics, Tensor, Tensor]:
        action = self.robot.clipped(action)
        after = self.robot.move(state, action)
        away = distance(task, after)
        near = torch.where(away <= GOAL_RADIUS, 1.0 - away, -GOAL_RADIUS)
        return after, near - 0.01 * effort(action) - contact_cost(after), never(away)

    def success(self, task: Place, state: Physics) -> Tensor:
        return distance(task, state) <= GOAL_RADIUS

    def sketch(self, task: Place, episodes: int = 1) -> Sketch[Physics]:
        """The path from above, with the ant, the wanted place and the disc that pays."""
        return from_above(self.robot, self.horizon, goal=xy(task.position), radius=GOAL_RADIUS)


def around(keys: Key, split: str) -> Place:
    """Places uniform over the disc of radius 3 m; in `ood` angle uniform and radius ~ U[3, 4) m."""
    u = rng.uniform(keys, 2)
    radius = 3.0 + u[:, :1] if split == "ood" else 3.0 * u[:, :1].sqrt()
    return Place(radius * unit_vectors(2.0 * math.pi * u[:, 1]))


def distance(task: Place, physics: Physics) -> Tensor:
    """Metres (B,) from the torso to the wanted place."""
    return (place(physics).float() - task.position).norm(dim=-1)


def walk(robot: Robot, task: Heading, state: Physics, action: Tensor, lowest: float) -> tuple[Physics, Tensor, Tensor]:
    """A step that pays for a direction, and ends the episode below the `lowest` height."""
    action = robot.clipped(action)
    after = robot.move(state, action)
    forward = (walked(robot, state, after) * task.direction).sum(-1)
    return after, forward - 0.5 * effort(action) - contact_cost(after) + 1.0, fallen(after, lowest)


__all__ = ["AntDir", "AntDir2D", "AntGoal", "AntGoalSparse", "AntVel", "Heading", "Place"]
