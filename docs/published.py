"""MuJoCo tasks as papers published them: the family and options that make each, and what differs here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from docs.docstrings import text


class Published(NamedTuple):
    """A task distribution of a paper."""

    paper: str
    name: str  # of the family, as in ``metarl/<name>-v0``
    options: Mapping[str, Any]
    dt: float  # seconds between two actions
    seen: int  # size of an observation
    reward: str
    ending: str  # "never", or the height or pitch that ends an episode
    tasks: str  # their distribution
    number: tuple[int | None, int | None]  # of training and test tasks; None: unlimited
    differs: str = ""  # what is different here


MAML = "MAML, Finn et al. 2017"
PROMP = "ProMP, Rothfuss et al. 2019"
PEARL = "PEARL, Rakelly et al. 2019"
VARIBAD = "VariBAD, Zintgraf et al. 2020"
HYPERX = "HyperX, Zintgraf et al. 2021"

FRESH = {"train_tasks": None, "test_tasks": None}
AS_SPEED = "−abs(v − v*) − .05 ‖a‖²"
AS_WAY = "v d − .05 ‖a‖²"
WALKING = "⟨v, d⟩ − .5 ‖a‖² − contact + 1"
GOAL = "−‖xy − g‖₁ − .1 ‖a‖² − contact"
BODY = "v + 1 − .001 ‖a‖²"
UPRIGHT = "z outside [.2, 1]"
LYING = "z outside [0, 1]"
WALKER = "z outside (.8, 2), pitch outside (−1, 1)"
HOPPER = "z not above .7, pitch outside (−.2, .2)"
WAYS = "d = ±1"
DISC = "g: radius 3 √U, any angle"
OWN_LIST = "the list; there it is drawn at each start"
START = "start .75 m high instead of .55 m on bent legs; contacts as hard as v5's"
INERTIA = "inertia scaled with the body's mass"
BODIES = "mass, friction, inertia · 1.5^u, damping · 1.3^u, u ~ U(−3, 3)"
HUMANOID = "28 numbers fewer, without those of the world's body and of the root, which are always 0"

ROWS = (
    Published(MAML, "HalfCheetahVelMAML", {}, 0.01, 17, "−abs(v − v*) − .05 ‖a‖², v of the centre of mass", "never",
              "v* ~ U(0, 2)", (None, None), "the torso's position is hidden (20 numbers there); start as v5's"),
    Published(MAML, "AntVelMAML", {}, 0.02, 125,
              "1 − abs(v − v*) − .005 ‖a‖² − contact + .05, v of the centre of mass", UPRIGHT,
              "v* ~ U(0, 3)", (None, None), START),
    Published(MAML, "AntDirMAML", {}, 0.02, 125,
              "v d − .005 ‖a‖² − contact + .05, v of the centre of mass", UPRIGHT, WAYS, (2, 2), START),
    Published(MAML, "AntPos", {}, 0.02, 125, "4 − ‖c − g‖₁ − .005 ‖a‖² − contact + .05, c the centre of mass", UPRIGHT,
              "g ~ U(−3, 3)²", (None, None), START),
    Published(PROMP, "HalfCheetahVel", FRESH, 0.05, 17, AS_SPEED, "never", "v* ~ U(0, 3)", (None, None)),
    Published(PROMP, "HalfCheetahDir", {}, 0.05, 17, AS_WAY, "never", WAYS, (2, 2)),
    Published(PROMP, "AntDir", {"min_height": 0, "show_contacts": True}, 0.05, 111, WALKING, LYING, WAYS, (2, 2)),
    Published(PROMP, "AntDir2D", {"min_height": 0, "show_contacts": True}, 0.05, 111, WALKING, LYING,
              "d: any direction", (None, None)),
    Published(PROMP, "AntGoal", {"show_contacts": True, **FRESH}, 0.05, 113, GOAL, "never", DISC, (None, None)),
    Published(PROMP, "Walker2dDir", {}, 0.016, 17, "v d + 1 − .001 ‖a‖²", WALKER, WAYS, (2, 2)),
    Published(PROMP, "Walker2dVel", {}, 0.016, 17, "15 − abs(v − v*) − .001 ‖a‖²", WALKER, "v* ~ U(0, 10)",
              (None, None)),
    Published(PROMP, "HumanoidDir", {"forward_backward": True, "show_contacts": True}, 0.015, 348,
              "1.25 v d − .1 ‖a‖² − contact + 5, v of the centre of mass", "z outside (1, 2)", WAYS, (2, 2), HUMANOID),
    Published(PROMP, "HumanoidDir", {"show_contacts": True, **FRESH}, 0.015, 348,
              "1.25 ⟨v, d⟩ − .1 ‖a‖² − contact + 5, v of the centre of mass", "z outside (1, 2)", "d: any direction",
              (None, None), HUMANOID),
    Published(PEARL, "HalfCheetahVel", {"tasks": "pearl", "show_x": True}, 0.05, 20, AS_SPEED, "never",
              "v* of a published list of U(0, 3)", (100, 30)),
    Published(PEARL, "HalfCheetahDir", {"show_x": True}, 0.05, 20, AS_WAY, "never", WAYS, (2, 2)),
    Published(PEARL, "AntDir", {}, 0.05, 27, WALKING, UPRIGHT, WAYS, (2, 2)),
    Published(PEARL, "AntGoal", {"show_contacts": True}, 0.05, 113, GOAL, "never", DISC, (150, 30), OWN_LIST),
    Published(PEARL, "HumanoidDir", {"show_contacts": True}, 0.015, 348,
              "1.25 ⟨v, d⟩ − .1 ‖a‖² − contact + 5, v of the centre of mass", "z outside (1, 2)", "d: any direction",
              (100, 30), f"{OWN_LIST}; {HUMANOID}"),
    Published(PEARL, "Walker2dRandParams", {"published": True}, 0.016, 17, BODY, WALKER, BODIES, (40, 10),
              f"{INERTIA}; {OWN_LIST}"),
    Published(PEARL, "HopperRandParams", {"published": True}, 0.016, 11, BODY, HOPPER, BODIES, (40, 10),
              f"{INERTIA}; {OWN_LIST}"),
    Published(VARIBAD, "HalfCheetahVel", {"show_x": True, **FRESH}, 0.05, 20, AS_SPEED, "never", "v* ~ U(0, 3)",
              (None, None)),
    Published(VARIBAD, "HalfCheetahDir", {"show_x": True}, 0.05, 20, AS_WAY, "never", WAYS, (2, 2)),
    Published(VARIBAD, "AntDir", {}, 0.05, 27, WALKING, UPRIGHT, WAYS, (2, 2),
              "forwards and backwards; its code reads ±1 as an angle in radians: two directions 115° apart"),
    Published(VARIBAD, "AntGoal", {"show_contacts": True, **FRESH}, 0.05, 113, GOAL, "never", DISC, (None, None)),
    Published(VARIBAD, "Walker2dRandParams", {"published": True, **FRESH}, 0.016, 17, BODY, WALKER, BODIES,
              (None, None), INERTIA),
    Published(HYPERX, "HalfCheetahDirSparse", {}, 0.05, 21, f"{AS_WAY}; within abs(x) < 5 only −.05 ‖a‖²", "never",
              WAYS, (2, 2)),
    Published(HYPERX, "AntGoalSparse", {}, 0.05, 116,
              "1 − d if d ≤ .75, else −.75, d the distance; − .01 ‖a‖² − contact", "never", DISC, (None, None)),
)  # fmt: skip
"""By paper, in the order of the table."""

TITLE = "MuJoCo tasks as published"
ABOUT = """\
Papers use the same names for different tasks: the time between two actions, the observations, the reward and the tasks
differ. This table lists the family and options that make the task of each paper, read from the papers' published code.
Under *train / test*, *2* means both directions for training and testing, and *any* means unlimited tasks.

All families use Gymnasium's v5 models (`published=True`, Walker2dDir and Walker2dVel use its v4 walker) in today's
MuJoCo, whereas the papers used the versions of their time: trajectories differ, so compare returns with care. *v* is a
speed along x or a velocity in the plane, *a* the action, *z* the height of the torso, and *contact* Gymnasium's contact
cost. Heights are in metres, times in seconds. An example of a call is
`metarl.make("metarl/AntGoal-v0", show_contacts=True)`.

Only PEARL published lists of tasks, and only for three families, whose code seeds NumPy's generator with 1337:
`HalfCheetahVel`, `PointRobot` and `SparsePointRobot`, each with `tasks="pearl"`. The lists of its other families, such
as `AntGoal` and `HumanoidDir`, are redrawn at each start of its code; those here have the same length. ProMP's
SwimmerRandVel is left out, because the sign of its reward is wrong: it rewards the difference from the target speed.
"""
HEADING = (
    "paper", "family and options", "s per action", "observations", "reward", "ending", "task", "train / test",
    "differs here",
)  # fmt: skip


def page(link: Callable[[str], str]) -> str:
    """The page as Markdown; `link` makes a link to a family's chapter."""
    lines = [f"| {' | '.join(HEADING)} |", "|" + "---|" * len(HEADING)]
    lines += [f"| {' | '.join(cells(row, link))} |" for row in ROWS]
    return f"# {TITLE}\n\n{ABOUT}\n" + "\n".join(lines) + "\n"


def cells(row: Published, link: Callable[[str], str]) -> list[str]:
    """A row of the table."""
    options = ", ".join(f"{name}={value!r}" for name, value in row.options.items())
    called = link(row.name) + (f" `{options}`" if options else "")
    many = " / ".join("any" if count is None else str(count) for count in row.number)
    number = "2" if row.number == (2, 2) else many
    seen, dt = str(row.seen), f"{row.dt:g}"
    return [row.paper, called, dt, seen, *map(text, (row.reward, row.ending, row.tasks, number, row.differs or "—"))]
