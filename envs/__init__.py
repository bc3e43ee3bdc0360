"""The task families that ship with metarl, one file per kind; importing this package registers them."""

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
from metarl.registry import register

FAMILIES = (
    BernoulliBandit,
    GaussianBandit,
    DependentBandit,
    InformativeBandit,
    RestlessBandit,
    TabularMDP,
    TwoStep,
    Navigation2D,
    PointRobot,
    SparsePointRobot,
    SemiCircle,
    WindyPoint,
    GridNavi,
    DarkRoom,
    DarkRoomHard,
    DarkKeyToDoor,
    TMaze,
    MetaMaze,
    Harlow,
    Alchemy,
    CartPole,
    Pendulum,
    Acrobot,
    MountainCar,
    MountainCarContinuous,
)

# Imported when they are first asked for: they need MuJoCo, which `pip install 'metarl[mujoco]'` brings.
SIMULATED = {
    "half_cheetah": ("HalfCheetahVel", "HalfCheetahVelMAML", "HalfCheetahDir", "HalfCheetahDirVel"),
    "ant": ("AntDir", "AntDir2D", "AntVel"),
    "ant_goal": ("AntGoal",),
    "humanoid": ("HumanoidDir",),
    "random_bodies": ("Walker2dRandParams", "HopperRandParams"),
}

__all__ = [family.__name__ for family in FAMILIES]

for _family in FAMILIES:
    register(f"metarl/{_family.__name__}-v0", _family)
for _module, _names in SIMULATED.items():
    for _name in _names:
        register(f"metarl/{_name}-v0", f"metarl.envs.{_module}:{_name}")
