"""The ant with a goal: a direction, a speed or a position. MuJoCo's model and starts are those of Gymnasium's v5."""

from metarl.envs.mujoco.ant.body import CONTACTS, contact_cost, contacts, fallen
from metarl.envs.mujoco.ant.directions import AntDir, AntDir2D
from metarl.envs.mujoco.ant.places import AntGoal, AntGoalSparse
from metarl.envs.mujoco.ant.speed import AntVel
from metarl.envs.mujoco.goals import Heading, Place

__all__ = [
    "CONTACTS", "AntDir", "AntDir2D", "AntGoal", "AntGoalSparse", "AntVel", "Heading", "Place", "contact_cost",
    "contacts", "fallen",
]  # fmt: skip
