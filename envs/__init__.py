"""The task families that ship with metarl, one file per kind; importing this package registers them."""

from metarl.envs.bandits import BernoulliBandit
from metarl.envs.grids import DarkRoom, GridNavi
from metarl.envs.mdp import TabularMDP
from metarl.envs.navigation import Navigation2D
from metarl.family import register

__all__ = ["BernoulliBandit", "TabularMDP", "Navigation2D", "GridNavi", "DarkRoom"]

for _family in (BernoulliBandit, TabularMDP, Navigation2D, GridNavi, DarkRoom):
    register(f"metarl/{_family.__name__}-v0", _family)
