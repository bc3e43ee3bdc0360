"""The groups of task families, each a page of the documentation, and a few words on every family."""

from __future__ import annotations

from typing import NamedTuple


class Group(NamedTuple):
    """Families that share a page."""

    title: str
    about: str
    names: tuple[str, ...]  # as in ``metarl/<name>-v0``, in the order of the page


GROUPS = {
    "bandits": Group(
        "Bandits",
        "An episode is one pull of an arm, and a trial is a sequence of pulls of one machine. Bandits are the smallest "
        "problems in which exploring costs something, and for most of them the best possible return is known.",
        ("BernoulliBandit", "GaussianBandit", "DependentBandit", "InformativeBandit", "RestlessBandit"),
    ),
    "mdp": Group(
        "Tabular decision processes",
        "Random finite Markov decision processes: a table of transitions and a table of rewards for each task.",
        ("TabularMDP",),
    ),
    "points": Group(
        "Points in the plane",
        "A point moves in the plane. Its goal, or the wind, is hidden, so the reward is the only clue.",
        ("Navigation2D", "PointRobot", "SparsePointRobot", "SemiCircle", "WindyPoint", "TreasureHunt"),
    ),
    "grids": Group(
        "Grids and mazes",
        "A hidden goal in a grid of cells. Search for it in the first episodes, then walk straight to it.",
        ("GridNavi", "DarkRoom", "DarkRoomHard", "DarkKeyToDoor", "TMaze", "MetaMaze", "RoomNavi", "WallMaze"),
    ),
    "rulesets": Group(
        "Rulesets",
        "Compositional tasks: goals and rules for coloured objects in a room, newly composed for every task.",
        ("Rulesets",),
    ),
    "cognitive": Group(
        "Tasks from cognitive science",
        "Experiments on how people and animals learn, in the form in which meta-learning papers use them.",
        ("TwoStep", "Harlow", "Alchemy"),
    ),
    "control": Group(
        "Classic control",
        "Gymnasium's classic control problems with masses, lengths, motors and gravity that change from task to task.",
        ("CartPole", "Pendulum", "Acrobot", "MountainCar", "MountainCarContinuous"),
    ),
    "supervised": Group(
        "Supervised few-shot learning",
        "Regression and classification as episodes: one example per step, with the right answer one step later. "
        "`FewShotDigits` needs the extra `digits`: `pip install -c constraints.txt -e '.[digits]'`.",
        ("Sinusoid", "FewShotDigits"),
    ),
    "mujoco": Group(
        "MuJoCo robots",
        "Gymnasium's v5 robots, with a task in their reward or in their body. A test checks that they equal "
        "Gymnasium's own environments step by step. They need the extra `mujoco`: "
        "`pip install -c constraints.txt -e '.[mujoco]'`. MuJoCo steps a whole batch with its own threads, "
        "always on the CPU; where the task is the body, each row has its own.",
        (
            "HalfCheetahVel", "HalfCheetahVelMAML", "HalfCheetahDir", "HalfCheetahDirVel", "HalfCheetahDirSparse",
            "AntDir", "AntDir2D", "AntVel", "AntGoal", "AntGoalSparse", "AntVelMAML", "AntDirMAML", "AntPos",
            "Walker2dDir", "Walker2dVel", "HumanoidDir", "Walker2dRandParams", "HopperRandParams",
        ),
    ),
    "adapter": Group(
        "Any Gymnasium environment",
        "An environment that is registered with Gymnasium becomes a family once you name its parameters, in Python or "
        "in a configuration file. Some environments need an extra, `mujoco`, `box2d` or `minigrid`: "
        "`pip install -c constraints.txt -e '.[box2d,minigrid]'`. "
        "[Your environment in ten lines](../tutorials/your_environment.md) shows how.",
        ("Gym",),
    ),
}  # fmt: skip
"""The pages, by their file's name."""

OVERVIEW = {
    "BernoulliBandit": ("win probabilities of the arms", "k / (k + 1)"),
    "GaussianBandit": ("mean payments of the arms", "k / (k + 1)"),
    "DependentBandit": (
        "p of two arms that pay with p and 1 − p (`structure`: uniform, easy, medium, hard)",
        ".75, .9, .75, .6",
    ),
    "InformativeBandit": ("which of ten arms pays 5; the eleventh reveals it", "5"),
    "RestlessBandit": ("random walk of two win probabilities during a trial", "66.7"),
    "TabularMDP": ("transition and reward tables", "21.83"),
    "TwoStep": ("which second state pays more, switching between rounds", "74 (70.59 Bayes-optimal)"),
    "Navigation2D": ("goal in the plane", "−.506"),
    "PointRobot": ("goal in the plane, random start", "−5.187"),
    "SparsePointRobot": ("goal on a half circle", "13.38 (`dense=True`: −3.84)"),
    "SemiCircle": ("goal on a half circle, random start", "51.82"),
    "WindyPoint": ("wind", "13.21"),
    "TreasureHunt": ("position of a treasure on a circle, visible from a mountain", "852.7"),
    "GridNavi": ("goal cell, 5 × 5", "11.071"),
    "DarkRoom": ("goal cell, 9 × 9", "16.543"),
    "DarkRoomHard": ("goal cell, 17 × 17", "1"),
    "DarkKeyToDoor": ("cells of key and door, 9 × 9", "2"),
    "TMaze": ("arm indicated by the cue", "1"),
    "MetaMaze": ("goal cell in a 9 × 9 maze", "416.2 (a bound)"),
    "RoomNavi": ("three goals to reach in order, in three rooms", "3376.6 on `all`"),
    "WallMaze": ("walls, start and goal of a 13 × 13 maze", "0.861"),
    "Rulesets": (
        "goal, production rules and objects of a room (`preset`: trivial, small, medium, high)",
        "0.970 (a bound)",
    ),
    "Harlow": ("two new objects and which one pays", "1 (unknown task: 0 in the first episode, then 1)"),
    "Alchemy": (
        "chemistry: graph, potion map, stone map, rotation",
        "28.84 on `all`, 29.76 train and test, 26.07 ood",
    ),
    "CartPole": (
        "gravity, masses of cart and pole, pole length, force",
        "unknown, at most 500 (regulator that knows the task: 500, ood 491)",
    ),
    "Pendulum": ("gravity, mass, length, motor strength", "unknown (swing-up that knows the task: −168)"),
    "Acrobot": ("masses and lengths of both links", "unknown (pushing along: −111)"),
    "MountainCar": ("gravity, force", "unknown (pushing along: −132)"),
    "MountainCarContinuous": ("gravity, force", "unknown, below 100 (pushing along: 90.4)"),
    "Sinusoid": ("amplitude and phase of a sine wave", "0"),
    "FewShotDigits": ("which digits, in which rotation, and their labels", "50 (chance: 10)"),
    "HalfCheetahVel": ("target speed", "unknown, below 0"),
    "HalfCheetahVelMAML": (
        "target speed, with the time steps of MAML's paper",
        "unknown (the paper's oracle: −54.5)",
    ),
    "HalfCheetahDir": ("forwards or backwards", "unknown"),
    "HalfCheetahDirVel": ("target speed, forwards or backwards", "unknown, below 0"),
    "HalfCheetahDirSparse": ("forwards or backwards, rewarded only 5 m away", "unknown"),
    "AntDir": ("forwards or backwards", "unknown"),
    "AntDir2D": ("direction in the plane (`half_circle=True` adds `ood`)", "unknown"),
    "AntVel": ("target speed", "unknown, at most 210"),
    "AntGoal": ("target position", "unknown, below 0"),
    "AntGoalSparse": ("target position, rewarded only near it", "unknown, below 200"),
    "AntVelMAML": ("target speed, with the time steps of MAML's paper", "unknown, at most 210"),
    "AntDirMAML": ("forwards or backwards, with the time steps of MAML's paper", "unknown"),
    "AntPos": ("target position, as in the code of MAML's paper", "unknown, at most 810"),
    "Walker2dDir": ("forwards or backwards", "unknown"),
    "Walker2dVel": ("target speed", "unknown, at most 3000"),
    "HumanoidDir": ("direction in the plane (`forward_backward=True`: two directions)", "unknown"),
    "Walker2dRandParams": ("masses, frictions, dampings", "unknown"),
    "HopperRandParams": ("masses, frictions, dampings", "unknown"),
    "Gym": ("what `parameters` names; by default the length of CartPole's pole", "unknown"),
}
"""What varies between tasks, and the best return of an episode with a known task, in a few words each."""
