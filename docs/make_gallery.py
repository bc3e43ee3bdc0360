"""Make the pages of the task families, docs/families/*.md, and their pictures docs/images/families/<Name>.png::

    python -m docs.make_gallery

The pages are made from the docstrings in `metarl/envs`. A picture shows an agent of the package on one test task, or,
where there is none, a policy that shows what the family is about.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw

import metarl
from docs import published
from docs.docstrings import markdown, rows, text
from docs.family_groups import GROUPS, OVERVIEW
from metarl.agents.random import RandomAgent
from metarl.agents.reference import bandits, control, grids, mazes, other_bandits, points
from metarl.core import rng
from metarl.core.batch_env import make_env
from metarl.core.family import State, Task, TaskFamily, drawn
from metarl.core.rollout import Agent
from metarl.core.tree import take
from metarl.envs import META_WORLD
from metarl.evaluation.playback import replay, watch
from metarl.report.card import Card, card, length, short_name, short_space

DOCS = Path(__file__).parent
PICTURES = Path("images") / "families"  # in DOCS
PAGES = Path("families")  # in DOCS
INDEX = "index"
PUBLISHED = "published"
COMMAND = "python -m docs.make_gallery"
SEED = 3
DIFFERENCES = "Differs from the source"
VARIANTS = "How they differ from the papers"
VARIANTS_HEAD = """\
    The families follow the published code of their papers, except where this table says otherwise. Compare a return
    with a published one only if none of the differences matters. Each family names its paper under *Source*.
    *An option* can restore the paper's version: [MuJoCo tasks as published](published.md) lists the options for each
    paper's task.
"""
HEIGHT, STRIP_HEIGHT, WIDTH = 360, 320, 1000  # pixels: of one picture, of several in a row, and of all together at most
SECTIONS = (
    "Description", "What varies", "Splits", "Actions", "Observations", "Rewards", "Endings", "Optimum",
    DIFFERENCES, "Source",
)  # fmt: skip


class Scene(NamedTuple):
    """The player in a family's picture, what the picture shows, and which episodes of the trial are in it.

    `agent` is the name of a trained agent of the package, or a function that makes a player for the family.
    """

    who: str  # completes "The picture: …"
    agent: str | Callable[[TaskFamily], Agent]
    note: str = ""  # what the marks mean
    episodes: tuple[int, ...] = ()  # from 1, one picture each; none: the whole trial in one
    number: int = 0  # of the task in its split


RL2 = "the RL² agent of the package"
PULLS = "Each mark is a pull, blue if it paid and red if not; yellow: the best arm."
PATH = "Paths run from pale to dark, from the black start."
CELLS = "Paths run from pale to dark; numbers count visits; black frame: the start; red: the goal."
CART = "Cars run from pale to dark in time."

SCENES: dict[str, Scene] = {
    "BernoulliBandit": Scene(RL2, "rl2_bernoulli_bandit", PULLS, number=2),
    "GaussianBandit": Scene(
        "Thompson sampling",
        lambda f: other_bandits.GaussianThompsonBandit(5),
        "Each mark is a pull, from red (low payment) to blue (high payment); yellow: the best arm.",
    ),
    "DependentBandit": Scene(f"{RL2} for `structure='medium'`", "rl2_dependent_bandit_medium", PULLS, number=1),
    "InformativeBandit": Scene(
        RL2, "rl2_informative_bandit", "The last arm pays a tenth of the best one's number, counted from 1."
    ),
    "RestlessBandit": Scene(
        "Thompson sampling for constant probabilities",
        lambda f: bandits.ThompsonBandit(2),
        "Full dots are pulls that paid, hollow dots pulls that did not.",
    ),
    "TabularMDP": Scene(
        RL2,
        "rl2_tabular_mdp",
        "One line per state; dark: likely; blue: reward, red: cost; then the states visited in the ten episodes.",
    ),
    "TwoStep": Scene(RL2, "rl2_two_step", "Each column is a round."),
    "Navigation2D": Scene(RL2, "rl2_navigation2d", f"{PATH} The blue square is the reach of one step.", (1, 2)),
    "PointRobot": Scene("the PEARL agent of the package", "pearl_point_robot", PATH, (1, 2, 3)),
    "SparsePointRobot": Scene(
        RL2, "rl2_sparse_point_robot", f"{PATH} Red circle: the rewarded area.", (1, 2, 3), number=2
    ),
    "SemiCircle": Scene(
        "a search along the arc",
        lambda f: points.ArcSearch(),
        f"{PATH} Red circle: the rewarded area.",
        (1, 2),
        number=1,
    ),
    "WindyPoint": Scene("an oracle that knows the wind", lambda f: points.WindyPointOracle(), PATH, (1,), number=1),
    "TreasureHunt": Scene(
        "a climb for the clue, then to the treasure",
        lambda f: points.TreasureHuntClimb(),
        f"{PATH} Grey: the mountain and its top; red circle: the rewarded area.",
        (1,),
    ),
    "GridNavi": Scene(RL2, "rl2_gridnavi", CELLS, (1, 2, 3)),
    "DarkRoom": Scene(f"{RL2}, in a trial of ten episodes", "rl2_darkroom", CELLS, (1, 2, 3, 10)),
    "DarkRoomHard": Scene("a search of unvisited cells", lambda f: grids.RoomSearch(17, 1), CELLS, (1, 2, 3, 4)),
    "DarkKeyToDoor": Scene(
        RL2,
        "rl2_dark_key_to_door",
        "Paths run from pale to dark; numbers count visits; black frame: the start.",
        (1, 2, 3, 4),
    ),
    "TMaze": Scene(RL2, "rl2_tmaze", "Numbers count visits.", (1,)),
    "MetaMaze": Scene(
        "a search, then the shortest paths",
        lambda f: mazes.MetaMazeSearch(),
        "Numbers count visits; orange: where the agent is at the end, and what it sees there.",
        (1,),
    ),
    "RoomNavi": Scene(
        RL2,
        "rl2_room_navi",
        "Paths run from pale to dark; numbers count visits; black frame: the start; 1 to 3: the goals.",
        (1,),
    ),
    "WallMaze": Scene(
        RL2,
        "rl2_wall_maze",
        "Numbers count visits; black frame: the start; red: the goal; orange: what the agent sees at the end.",
        (1, 4),
    ),
    "Rulesets": Scene(
        RL2,
        "rl2_rulesets_trivial",
        "Paths run from pale to dark; the triangle is the agent, with what it holds.",
        (1, 2),
    ),
    "Harlow": Scene(
        RL2, "rl2_harlow", "Each column is a round, in which time runs downwards; the framed cells are the gaze."
    ),
    "Alchemy": Scene(
        RL2,
        "rl2_alchemy",
        "Its tenth episode, downwards in time: the three stones until they are cashed in, and the potions, hollow once "
        "used. The cube shows the values of stones, and the edges along which potions can change them.",
        (10,),
        number=2,
    ),
    "CartPole": Scene(RL2, "rl2_cartpole", "Poles run from pale to dark in time.", (1, 2)),
    "Pendulum": Scene(RL2, "rl2_pendulum", "Rods run from pale to dark in time.", (1, 2)),
    "Acrobot": Scene(
        "pushing along the second link's velocity",
        control.PushAlong,
        "Links run from pale to dark in time; the line is the height to reach.",
        (1,),
    ),
    "MountainCar": Scene("pushing along the velocity", control.PushAlong, CART, (1,)),
    "MountainCarContinuous": Scene("pushing along the velocity", control.PushAlong, CART, (1,)),
    "Sinusoid": Scene(
        RL2,
        "rl2_sinusoid",
        "Red dots are the numbered predictions, blue dots the correct values, shown one step later.",
        (1,),
    ),
    "FewShotDigits": Scene(
        RL2,
        "rl2_few_shot_digits",
        "Each row is a label, with its images in the order in which they came; blue: labelled correctly, red: wrongly.",
        (1,),
    ),
    "Gym": Scene(f"{RL2}, on LunarLander", "rl2_lunar_lander", "The last moment of each episode.", (1, 2)),
    "HalfCheetahVel": Scene(
        RL2, "rl2_half_cheetah_vel", "Poses of one episode; red: the target speed.", (1,), number=1
    ),
    "HalfCheetahVelMAML": Scene(
        "the MAML agent of the package, before and after gradient steps",
        "maml_half_cheetah_vel",
        "Poses of one episode each; red: the target speed.",
        (1, 4),
    ),
}
RANDOM = Scene("random actions", RandomAgent, episodes=(1,))  # for families without a scene


def shipped() -> list[str]:
    """The ids of the families that come with metarl, except Meta-World's, which have their own page."""
    return [id for id in metarl.registered() if id.startswith("metarl/") and short_name(id) not in META_WORLD]


# ---- pictures ------------------------------------------------------------------------------------------------------


def play(family: TaskFamily, task: Task, agent: Agent) -> list[list[State]]:
    """The states visited in each episode of a trial of one row, for agents that do not adapt in rounds."""
    env = make_env(family, task, rng.key(SEED))
    step, memory = env.reset(), agent.begin(1, task)
    episodes, t = [[env.state]], 0
    with torch.no_grad():
        while not env.all_done():
            keys = rng.fold(rng.fold(rng.key(SEED), t), torch.arange(1))
            acted, memory = agent.act(memory, step, keys)
            _, step = env.step(acted.action)
            episodes[-1].append(env.final_state)
            if bool(step.prev_done[0]):
                episodes.append([env.state])
            t += 1
    return episodes[:-1]


def trial(family: TaskFamily, agent: Agent, split: str, number: int) -> tuple[Task, list[list[State]], list[str]]:
    """A task, and states and caption of each episode, or of each round's first if the agent adapts in rounds."""
    if agent.protocol.test().rounds == 1:
        task = family.sample_tasks(rng.key(SEED), 1, split, first=number)
        episodes = play(family, task, agent)
        return task, episodes, [f"episode {i}" for i in range(1, len(episodes) + 1)]
    curve, watched = watch(agent, family, split, tasks=number + 1, seed=SEED)
    rounds = replay(watched, family, number, seed=SEED)
    return take(watched.task, slice(number, number + 1)), [part[0].states for part in rounds], list(curve.labels)


def picture(id: str) -> Image.Image:
    """The picture of a family: its scene's episodes side by side, or its whole trial."""
    scene, family, agent = cast(id)
    task, episodes, captions = trial(family, agent, split_of(family), scene.number)
    if not scene.episodes:
        return fitted(Image.fromarray(drawn(family.sketch(task, len(episodes)), episodes)), HEIGHT, WIDTH)
    shown = [number - 1 for number in scene.episodes if number <= len(episodes)]
    pictures = [Image.fromarray(drawn(family.sketch(task), [episodes[number]])) for number in shown]
    if len(pictures) == 1:
        return fitted(pictures[0], HEIGHT, WIDTH)
    return strip(pictures, [captions[number] for number in shown])


def cast(id: str) -> tuple[Scene, TaskFamily, Agent]:
    """The scene of a family, the family as it is played there, and who plays."""
    scene = SCENES.get(short_name(id), RANDOM)
    if isinstance(scene.agent, str):
        agent = metarl.load(f"pretrained:{scene.agent}", device="cpu")
        return scene, agent.family.drawable(), agent
    family = metarl.make(id).drawable()
    return scene, family, scene.agent(family)


def split_of(family: TaskFamily) -> str:
    """The split of the tasks that are pictured."""
    return "test" if "test" in family.splits else "train"


def fitted(image: Image.Image, height: int, width: int) -> Image.Image:
    """`image`, scaled down if it is larger than this."""
    scale = min(1.0, height / image.height, width / image.width)
    return image.resize((round(scale * image.width), round(scale * image.height)), Image.Resampling.LANCZOS)


def strip(pictures: Sequence[Image.Image], captions: Sequence[str], gap: int = 12, line: int = 22) -> Image.Image:
    """Pictures in a row, each under its caption, on white."""
    each = (WIDTH - gap * (len(pictures) - 1)) // len(pictures)
    small = [fitted(image, STRIP_HEIGHT, each) for image in pictures]
    whole = Image.new(
        "RGB", (sum(s.width for s in small) + gap * (len(small) - 1), line + max(s.height for s in small)), "white"
    )
    draw, x = ImageDraw.Draw(whole), 0
    for image, caption in zip(small, captions, strict=True):
        draw.text((x + 2, 2), caption, fill="black", font_size=14)
        whole.paste(image, (x, line))
        x += image.width + gap
    return whole


def save(image: Image.Image, path: Path) -> None:
    """Write an optimised PNG with a palette that keeps the colours of few pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)


# ---- the pages -----------------------------------------------------------------------------------------------------


def pages(ids: Sequence[str]) -> dict[str, str]:
    """The pages of these families as Markdown, by their file's name."""
    cards = {short_name(id): card(id) for id in ids}
    grouped = [name for group in GROUPS.values() for name in group.names]
    if homeless := sorted(set(cards) - set(grouped)):
        raise ValueError(f"The family {homeless[0]} belongs to no group of docs.family_groups.GROUPS.")
    found = {INDEX: index(cards), PUBLISHED: f"{MADE_FROM_TABLE}\n{published.page(link)}"}
    for file, group in GROUPS.items():
        chapters = [chapter(cards[name]) for name in group.names]
        links = " · ".join(f"[{name}](#{anchor(name)})" for name in group.names)
        top = [f"{MADE}\n# {group.title}\n", f"{group.about}\n", *([f"{links}\n"] if len(chapters) > 1 else [])]
        found[file] = "\n".join([*top, *chapters])
    return found


MADE = f"<!-- Generated by `{COMMAND}` from the docstrings in envs/: change those, not this page. -->"
MADE_FROM_TABLE = f"<!-- Generated by `{COMMAND}` from docs/published.py: change that, not this page. -->"
HEAD = """\
    # Task families

    A family is a distribution over tasks that share observation space, action space and episode length. Make one by
    its id: `metarl.make("metarl/GridNavi-v0")` or `gymnasium.make("metarl:metarl/GridNavi-v0")`. In the terminal,
    `metarl envs` lists all families, and `metarl envs GridNavi` describes one. To add your own, see
    [Your own family in 30 lines](../tutorials/family.md). Meta-World's benchmarks, whose simulator needs a separate
    environment, have [their own page](../meta_world.md).

    A trial consists of several episodes on one task; an agent may use in one episode what it learned in the previous
    ones. In the tables, *episode × trial* gives the steps of an episode and the episodes of a trial, and *optimum* is
    the best return of an episode for an oracle that knows the task. No agent knows the task in its first episode.
"""


def index(cards: Mapping[str, Card]) -> str:
    """The page that leads to the others."""
    parts = [f"{MADE}\n{textwrap.dedent(HEAD)}"]
    for file, group in GROUPS.items():
        lines = ["| family | what varies | episode × trial | optimum of an episode |", "|---|---|---|---|"]
        for name in group.names:
            varies, optimum = OVERVIEW[name]
            lines.append(f"| {link(name)} | {varies} | {length(cards[name].family)} | {optimum} |")
        parts.append(f"## [{group.title}]({file}.md)\n\n" + "\n".join(lines) + "\n")
    toctree = "\n".join(["```{toctree}", ":hidden:", "", *GROUPS, PUBLISHED, "```"])
    return "\n".join([*parts, variants(list(cards.values())), f"{toctree}\n"])


def link(name: str) -> str:
    """A link from the index to a family's chapter."""
    file = next(file for file, group in GROUPS.items() if name in group.names)
    return f"[{name}]({file}.md#{anchor(name)})"


def variants(cards: Sequence[Card]) -> str:
    """One table of all differences between the families and their sources."""
    found = ["| family | what | here | there |\n|---|---|---|---|"]
    for each in cards:
        for row in rows(each.sections.get(DIFFERENCES, "").splitlines())[1:]:
            found.append(f"| {link(short_name(each.id))} | {' | '.join(text(cell) for cell in row)} |")
    return f"## {VARIANTS}\n\n{textwrap.dedent(VARIANTS_HEAD)}\n" + "\n".join(found) + "\n"


def anchor(heading: str) -> str:
    """The part of a link that leads to a heading."""
    return re.sub(r"[^\w-]", "", heading.lower())


def chapter(card: Card) -> str:
    """One family of the page."""
    name, family = short_name(card.id), card.family
    scene, pictured, _ = cast(card.id)
    spaces = f"observation {short_space(family.observation_space)}, action {short_space(family.action_space)}"
    lines = [
        f"## {name}",
        text(card.summary),
        f"![{name}: {scene.who}](../{(PICTURES / name).as_posix()}.png)",
        f"*The picture: {scene.who}, on a task of `{split_of(pictured)}`. {scene.note}".rstrip() + "*",
        f"`{card.id}`, `{card.call}`: episode × trial {length(family)}, {spaces}.",
    ]
    for heading in SECTIONS:
        if heading in card.sections:
            lines += [f"**{heading}**", markdown(card.sections[heading])]
    return "\n\n".join(lines) + "\n"


def main() -> None:
    """Write the pictures and the pages."""
    ids = shipped()
    for id in ids:
        save(picture(id), DOCS / PICTURES / f"{short_name(id)}.png")
    for name, written in pages(ids).items():
        (DOCS / PAGES / f"{name}.md").write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
