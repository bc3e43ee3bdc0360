"""The ant: Gymnasium's Ant-v5, its readings, and its termination."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from metarl.core.errors import short
from metarl.envs.mujoco.robots import Robot, torso_place
from metarl.envs.mujoco.simulator import Physics

CONTACT_COST = 0.0005
CONTACTS = 14 * 6  # forces and torques of contact, clipped to ±1, of 13 bodies and the world


def ant(hidden: int = 2, show_contacts: bool = False) -> Robot:
    """Gymnasium's Ant-v5; its `reading` ends with the torso's place (2) and the sum of squares of contact forces.

    Its place in the world is not observed, unless `hidden` is 0, nor are the forces of contact (84), unless asked for.
    """
    reading, shown = (contacts_and_place, CONTACTS) if show_contacts else (place_and_contact, 0)
    return Robot("ant.xml", 5, noise=0.1, hidden=hidden, gaussian=True, reading=reading, shown=shown)


def contacts(data: Any) -> np.ndarray:
    """Return the clipped contact forces and torques of each body, (14, 6)."""
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
    """Return the torso's position (B, 2), float64."""
    return physics.reading[:, -3:-1]


def walked(robot: Robot, state: Physics, after: Physics) -> Tensor:
    """Return the mean velocity (B, 2) in m/s between two actions."""
    return ((place(after) - place(state)) / robot.dt).float()


def contact_cost(after: Physics) -> Tensor:
    """Return Gymnasium's contact cost (B,)."""
    return CONTACT_COST * after.reading[:, -1].float()


def fallen(after: Physics, lowest: float = 0.2) -> Tensor:
    """Return True where the torso's height is outside [lowest, 1] m: bool (B,)."""
    height = after.state[:, 3]
    return ~((height >= lowest) & (height <= 1.0))  # so that NaN counts as fallen


def checked_height(height: float) -> float:
    """Return a `min_height`. Raises ValueError unless it is in [0, 0.75) m; an ant starts at 0.75 m."""
    if isinstance(height, bool) or not isinstance(height, int | float) or not 0.0 <= height < 0.75:
        raise ValueError(f"min_height must be from 0 to below 0.75 (metres), got {short(height)}.")
    return float(height)
