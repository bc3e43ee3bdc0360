"""Make docs/families.md, the page of all task families, and its pictures docs/images/families/<Name>.png::

    python -m docs.make_gallery

The page is what `metarl/envs` says in its docstrings; the pictures show an agent of the package, or where there is
none a policy that makes something to see of the family, on one test task.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw

import metarl
from metarl.agents.random import RandomAgent
from metarl.agents.reference import bandits, control, grids, mazes, other_bandits, points
from metarl.core import rng
from metarl.core.batch_env import BatchEnv
from metarl.core.family import State, Task, TaskFamily, drawn
from metarl.core.rollout import Agent
from metarl.core.tree import take
from metarl.evaluation.playback import replay, watch
from metarl.report.card import Card, card, length, short_name, short_space

DOCS = Path(__file__).parent
PICTURES = Path("images") / "families"  # in DOCS
PAGE = "families.md"
COMMAND = "python -m docs.make_gallery"
SEED = 3
DIFFERENCES = "Differs from the source"
VARIANTS = "What differs from the sources"
VARIANTS_HEAD = """\
    The families are those of the papers as their published code has them, but for what this table says. A return
    compares with a published one only where none of it matters. The papers are named in each family's *Source*.
"""
HEIGHT, STRIP_HEIGHT, WIDTH = 360, 320, 1000  # pixels: of one picture, of several in a row, and of all together at most
SECTIONS = (
    "Description", "What varies", "Splits", "Actions", "Observations", "Rewards", "Endings", "Optimum",
    DIFFERENCES, "Source",
)  # fmt: skip


class Scene(NamedTuple):
    """Who plays for a family's picture, what is to be seen, and which episodes of the trial are shown.

    `agent` is the name of a trained agent of the package, or makes a player for the family.
    """

    who: str  # completes "The picture: …"
    agent: str | Callable[[TaskFamily], Agent]
    note: str = ""  # what the marks mean
    episodes: tuple[int, ...] = ()  # from 1, one picture each; none: the whole trial in one
    number: int = 0  # of the task in its split


RL2 = "the RL² agent of the package"
PULLS = "Each mark is a pull, green where it paid and red where not; yellow: the best arm."
PATH = "Paths run from pale to dark, from the black start."
CELLS = "Paths run from pale to dark, numbers count visits; black frame: the start, red: the goal."
CART = "Cars run from pale to dark in time."

SCENES: dict[str, Scene] = {
    "BernoulliBandit": Scene(RL2, "rl2_bernoulli_bandit", PULLS),
    "GaussianBandit": Scene(
        "Thompson sampling",
        lambda f: other_bandits.GaussianThompsonBandit(5),
        "Each mark is a pull, from red (paid little) to green (paid much); yellow: the best arm.",
    ),
    "DependentBandit": Scene(f"{RL2} for `structure='medium'`", "rl2_dependent_bandit_medium", PULLS, number=1),
    "InformativeBandit": Scene(
        RL2, "rl2_informative_bandit", "The last arm pays a tenth of the best one's number, counted from 1."
    ),
    "RestlessBandit": Scene(
        "Thompson sampling as if nothing changed",
        lambda f: bandits.ThompsonBandit(2),
        "Full dots are pulls that paid, hollow ones did not.",
    ),
    "TabularMDP": Scene(
        RL2,
        "rl2_tabular_mdp",
        "One line per state; dark: likely, green: pays, red: costs, blue: where it was in the ten episodes.",
    ),
    "TwoStep": Scene(RL2, "rl2_two_step", "Each column is a round."),
    "Navigation2D": Scene(RL2, "rl2_navigation2d", f"{PATH} The blue square is the reach of one step.", (1, 2)),
    "PointRobot": Scene("an oracle that is told the goal", lambda f: points.Navigation2DOracle(), PATH, (1, 2, 3)),
    "SparsePointRobot": Scene(RL2, "rl2_sparse_point_robot", f"{PATH} Red circle: what pays.", (1, 2, 3), number=2),
    "SemiCircle": Scene(
        "a search along the arc", lambda f: points.ArcSearch(), f"{PATH} Red circle: what pays.", (1, 2), number=1
    ),
    "WindyPoint": Scene("an oracle that is told the wind", lambda f: points.WindyPointOracle(), PATH, (1,), number=1),
    "GridNavi": Scene(RL2, "rl2_gridnavi", CELLS, (1, 2, 3)),
    "DarkRoom": Scene(f"{RL2}, in a trial of ten episodes", "rl2_darkroom", CELLS, (1, 2, 3, 10)),
    "DarkRoomHard": Scene("a search of the cells not yet seen", lambda f: grids.RoomSearch(17, 1), CELLS, (1, 2, 3, 4)),
    "DarkKeyToDoor": Scene(
        RL2,
        "rl2_dark_key_to_door",
        "Paths run from pale to dark, numbers count visits; black frame: the start.",
        (1, 2, 3, 4),
    ),
    "TMaze": Scene(RL2, "rl2_tmaze", "Numbers count visits.", (1,)),
    "MetaMaze": Scene(
        "a search, then the shortest ways",
        lambda f: mazes.MetaMazeSearch(),
        "Numbers count visits; orange: where the agent is in the end, and what it sees there.",
        (1,),
    ),
    "Harlow": Scene(
        RL2, "rl2_harlow", "A column is a round, in which time runs downwards; the framed cells are the gaze."
    ),
    "Alchemy": Scene(
        RL2,
        "rl2_alchemy",
        "Its tenth episode, downwards in time: the three stones until they are cashed in, and the potions, hollow once "
        "used. The cube: what stones are worth, and along which edges potions can change them.",
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
    "HalfCheetahVel": Scene(
        RL2, "rl2_half_cheetah_vel", "Poses of one episode; red: the wanted speed.", (1,), number=1
    ),
    "HalfCheetahVelMAML": Scene(
        "the MAML agent of the package, before and after gradient steps",
        "maml_half_cheetah_vel",
        "Poses of one episode each; red: the wanted speed.",
        (1, 4),
    ),
}
RANDOM = Scene("random actions", RandomAgent, episodes=(1,))  # for families without a scene


def shipped() -> list[str]:
    """The ids of the families that come with metarl."""
    return [id for id in metarl.registered() if id.startswith("metarl/")]


# ---- pictures ------------------------------------------------------------------------------------------------------


def play(family: TaskFamily, task: Task, agent: Agent) -> list[list[State]]:
    """The visited states of each episode of a trial of one row, for agents that do not adapt in rounds."""
    env = BatchEnv(family, task, rng.key(SEED))
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
    """A task, and the states and a caption of each episode; of agents that adapt in rounds, of each round's first."""
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
        return scene, agent.family, agent
    family = metarl.make(id)
    return scene, family, scene.agent(family)


def split_of(family: TaskFamily) -> str:
    """The split of the tasks that are pictured."""
    return "test" if "test" in family.splits else "train"


def fitted(image: Image.Image, height: int, width: int) -> Image.Image:
    """`image`, made smaller where it is larger than this."""
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
    """Write an optimised PNG with a palette, chosen so that colours of few pixels stay what they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)


# ---- the page ------------------------------------------------------------------------------------------------------


def page(ids: Sequence[str]) -> str:
    """The page of these families as Markdown."""
    links = " · ".join(f"[{short_name(id)}](#{anchor(id)})" for id in ids)
    head = f"""\
        <!-- Generated by `{COMMAND}` from the docstrings in envs/: change those, not this page. -->
        # Task families

        A family is a distribution over tasks that share observation space, action space and episode length. Make one
        by its id, `metarl.make("metarl/GridNavi-v0")` or `gymnasium.make("metarl:metarl/GridNavi-v0")`;
        `metarl envs` lists them all in the terminal. A trial is several episodes on one task, and what an
        agent learned in one it may use in the next. Episode × trial counts the steps of an episode and the episodes
        of a trial.

        """
    cards = [card(id) for id in ids]
    chapters = "\n".join(chapter(each) for each in cards)
    return f"{textwrap.dedent(head)}{links}\n\n{variants(cards)}\n{chapters}"


def variants(cards: Sequence[Card]) -> str:
    """One table of all that the families say of their differences from their sources."""
    found = ["| family | what | here | there |\n|---|---|---|---|"]
    for each in cards:
        for row in rows(each.sections.get(DIFFERENCES, "").splitlines())[1:]:
            name = f"[{short_name(each.id)}](#{anchor(each.id)})"
            found.append(f"| {name} | {' | '.join(text(cell) for cell in row)} |")
    return f"## {VARIANTS}\n\n{textwrap.dedent(VARIANTS_HEAD)}\n" + "\n".join(found) + "\n"


def anchor(id: str) -> str:
    """Where GitHub's links to a heading lead."""
    return re.sub(r"[^\w-]", "", id.lower())


def chapter(card: Card) -> str:
    """One family of the page."""
    name, family = short_name(card.id), card.family
    scene, pictured, _ = cast(card.id)
    spaces = f"observation {short_space(family.observation_space)}, action {short_space(family.action_space)}"
    lines = [
        f"## {card.id}",
        text(card.summary),
        f"![{name}: {scene.who}]({(PICTURES / name).as_posix()}.png)",
        f"*The picture: {scene.who}, on a task of `{split_of(pictured)}`. {scene.note}".rstrip() + "*",
        f"`{card.call}`: episode × trial {length(family)}, {spaces}.",
    ]
    for heading in SECTIONS:
        if heading in card.sections:
            lines += [f"**{heading}**", markdown(card.sections[heading])]
    return "\n\n".join(lines) + "\n"


def markdown(section: str) -> str:
    """A docstring's section as Markdown: paragraphs and lists as they are, simple tables as Markdown tables."""
    blocks: list[str] = []
    plain: list[str] = []
    lines = section.splitlines()

    def flush() -> None:
        if any(plain):
            blocks.append(text("\n".join(plain).strip("\n")))
        plain.clear()

    at = 0
    while at < len(lines):
        if is_border(lines[at]):
            borders = [number for number in range(at, len(lines)) if is_border(lines[number])][:3]
            if len(borders) < 3:
                raise ValueError(f"A table needs three borders: {lines[at:]}")
            flush()
            blocks.append(table(lines[at : borders[2] + 1]))
            at = borders[2] + 1
        else:
            plain.append(lines[at])
            at += 1
    flush()
    return "\n\n".join(blocks)


def is_border(line: str) -> bool:
    return re.fullmatch(r"=+( +=+)+", line.strip()) is not None


def table(lines: Sequence[str]) -> str:
    """A reStructuredText simple table (border, heading, border, rows, border) as a Markdown table.

    As there, a row whose first cell is empty continues the one above, and the last column may be wider than its border.
    """
    written = ["| " + " | ".join(text(cell).replace("|", r"\|") for cell in row) + " |" for row in rows(lines)]
    return "\n".join([written[0], "|" + "---|" * (written[0].count(" | ") + 1), *written[1:]])


def rows(lines: Sequence[str]) -> list[list[str]]:
    """The cells of a simple table, the heading's first; none without lines."""
    starts = [found.start() for line in lines[:1] for found in re.finditer("=+", line)]
    ends = [*starts[1:], None]
    found: list[list[str]] = []
    for line in lines:
        if is_border(line) or not line.strip():
            continue
        cells = [line[start:end].strip() for start, end in zip(starts, ends, strict=True)]
        if cells[0] or not found:
            found.append(cells)
        else:
            found[-1] = [f"{above} {cell}".strip() for above, cell in zip(found[-1], cells, strict=True)]
    return found


def text(rst: str) -> str:
    """Inline markup: literals in double backticks get single ones, and a lone * is no emphasis."""
    pieces = re.split(r"(``.+?``|`[^`]+`)", rst, flags=re.DOTALL)
    return "".join(
        f"`{piece.strip('`')}`" if piece.startswith("`") else piece.replace("*", r"\*").replace("<", "&lt;")
        for piece in pieces
    )


def main() -> None:
    """Write the pictures and the page."""
    ids = shipped()
    for id in ids:
        save(picture(id), DOCS / PICTURES / f"{short_name(id)}.png")
    (DOCS / PAGE).write_text(page(ids), encoding="utf-8")


if __name__ == "__main__":
    main()
