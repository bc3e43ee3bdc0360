"""The task families that ship with metarl, one file per kind; importing this package registers them.

A family's own module is imported when the family is first asked for, so that ``import metarl`` is quick.
"""

# ruff: noqa: F401  (the imports of families are for type checkers; `__getattr__` gives them)

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from metarl.registry import register

if TYPE_CHECKING:
    from metarl.envs.alchemy import Alchemy
    from metarl.envs.bandits import BernoulliBandit
    from metarl.envs.classic_control import CartPole
    from metarl.envs.grids import DarkRoom, GridNavi
    from metarl.envs.half_circle import SemiCircle, SparsePointRobot
    from metarl.envs.harlow import Harlow
    from metarl.envs.mdp import TabularMDP
    from metarl.envs.meta_maze import MetaMaze
    from metarl.envs.more_bandits import DependentBandit, GaussianBandit, InformativeBandit
    from metarl.envs.mountain_car import MountainCar, MountainCarContinuous
    from metarl.envs.navigation import Navigation2D
    from metarl.envs.points import PointRobot, WindyPoint
    from metarl.envs.restless_bandit import RestlessBandit
    from metarl.envs.rooms import DarkKeyToDoor, DarkRoomHard
    from metarl.envs.swing_up import Acrobot, Pendulum
    from metarl.envs.tmaze import TMaze
    from metarl.envs.two_step import TwoStep
    from metarl.family import TaskFamily

    FAMILIES: tuple[type[TaskFamily], ...]
    """The classes of `PLAIN`."""

PLAIN = {
    "BernoulliBandit": "bandits",
    "GaussianBandit": "more_bandits",
    "DependentBandit": "more_bandits",
    "InformativeBandit": "more_bandits",
    "RestlessBandit": "restless_bandit",
    "TabularMDP": "mdp",
    "TwoStep": "two_step",
    "Navigation2D": "navigation",
    "PointRobot": "points",
    "SparsePointRobot": "half_circle",
    "SemiCircle": "half_circle",
    "WindyPoint": "points",
    "GridNavi": "grids",
    "DarkRoom": "grids",
    "DarkRoomHard": "rooms",
    "DarkKeyToDoor": "rooms",
    "TMaze": "tmaze",
    "MetaMaze": "meta_maze",
    "Harlow": "harlow",
    "Alchemy": "alchemy",
    "CartPole": "classic_control",
    "Pendulum": "swing_up",
    "Acrobot": "swing_up",
    "MountainCar": "mountain_car",
    "MountainCarContinuous": "mountain_car",
}
"""Each family's class and its module here, but for the simulated ones."""
SIMULATED = {
    "half_cheetah": ("HalfCheetahVel", "HalfCheetahVelMAML", "HalfCheetahDir", "HalfCheetahDirVel"),
    "ant": ("AntDir", "AntDir2D", "AntVel"),
    "ant_goal": ("AntGoal",),
    "humanoid": ("HumanoidDir",),
    "random_bodies": ("Walker2dRandParams", "HopperRandParams"),
}
"""The modules that need MuJoCo, which ``pip install 'metarl[mujoco]'`` brings, and their classes."""

__all__ = [*PLAIN]

for _name, _module in PLAIN.items():
    register(f"metarl/{_name}-v0", f"metarl.envs.{_module}:{_name}")
for _module, _names in SIMULATED.items():
    for _name in _names:
        register(f"metarl/{_name}-v0", f"metarl.envs.{_module}:{_name}")


def __getattr__(name: str) -> Any:
    """The class of a family, imported when it is first asked for."""
    if name in PLAIN:
        return getattr(importlib.import_module(f"metarl.envs.{PLAIN[name]}"), name)
    if name == "FAMILIES":
        return tuple(__getattr__(each) for each in PLAIN)
    raise AttributeError(f"module 'metarl.envs' has no attribute {name!r}")
