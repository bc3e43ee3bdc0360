"""Who adapts how fast: learned agents, stable-baselines3 and the classics on the same tasks of five families.

``python -m benchmarks.adaptation [FAMILY …] [--runs DIR] [--tasks 400] [--costly_tasks 16]`` trains what is missing in
DIR (seeds 1 to 3 of each learned agent; seed 1 of an agent that comes with the package is that one), compares on train,
test and ood, and writes docs/comparison.md, docs/images/adaptation.png and a figure of each family. Trained runs and
played curves are kept: the same command again goes on where it stopped. About two hours on one core from nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure

from metarl.agents.reference.catalogue import baseline
from metarl.agents.sb3.agent import SB3Agent
from metarl.agents.sb3.config import PPOConfig
from metarl.cli.contenders import Line, compare
from metarl.core.rollout import Agent
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.results import short
from metarl.fast.runtime import tune
from metarl.report.comparison import Comparison
from metarl.training import checkpoint
from metarl.training.config import parsing as config

DOCS = Path(__file__).parent.parent / "docs"
SPLITS = ("train", "test", "ood")
SEEDS = (1, 2, 3)
RL2, MAML, TUNED, SCRATCH, MULTI = "RL²", "MAML", "PPO, fine-tuned", "PPO, from scratch", "PPO, multi-task"
LEARNED = (RL2, MAML, TUNED, SCRATCH, MULTI)


HEAD = """\
This page compares how fast learned agents, stable-baselines3's PPO and classical players adapt to a new task, on five
families. It is made by `python -m benchmarks.adaptation`. All agents play the same tasks with the same noise. The
numbers are returns of an episode (on bandits, of a pull) at the last point of the adaptation curve, with 95 % intervals
over seeds and tasks ([how to read a number](reading.md)). There are three training seeds and {tasks} tasks per split,
{costly_tasks} of them for the agents that train on each task (fine-tuned, from scratch). Learned agents sample their
actions, and were trained only on the split `train`."""

SHOWS = """\
- RL² has adapted after one episode, MAML after one to three gradient steps, PPO from scratch after thousands of steps:
  17, 8,700 and 35,000 on Navigation2D. Given enough time, the slow ones end higher (tabular MDPs: 17.6, 18.1, 19.9),
  and they still adapt out of distribution (Navigation2D: PPO from scratch −4.96, MAML −7.00,
  RL² −18.06 [−34.25, −1.86]).
- The six test goals of GridNavi lie where RL² learned never to look (6.54 of 10.23,
  [finding 5](#finding-finite-goals)). With six tasks and three seeds the intervals there are wide.
- On bandits of 100 pulls the seeds of RL² diverge late in the trial: one of three earns less at the end than in the
  middle.
- A policy without memory that was trained on all tasks (multi-task PPO) plays the last episode as it played the first:
  it stands still on Navigation2D (−39, random −60), is at chance on bandits and MDPs, and balances every CartPole of
  the test split. CartPole therefore tests robustness more than adaptation.
- Fine-tuning the multi-task policy is *slower* than PPO from scratch on Navigation2D and GridNavi: the trained policy
  is more certain of its actions and explores less ([finding 33](#finding-transfer)).

![Adaptation of RL², MAML, PPO and the classics on five families](images/adaptation.png)

The horizontal axis is the number of environment steps on the task, on a logarithmic scale. Dashed lines are the
known-task optimum and random play."""
"""What a reader should see; written by hand from the tables of 2026-11-28: look again when they are made anew."""


class Subject(NamedTuple):
    """One family and who plays it."""

    title: str
    rl2: str  # presets
    maml: str
    ppo: str
    baselines: tuple[str, ...]  # of `metarl.agents.reference.catalogue`
    options: tuple[str, ...] = ()  # of the training of the learned agents, where presets differ from what is asked here


SUBJECTS = {
    "navigation2d": Subject(
        "Navigation2D", "rl2_navigation2d", "maml_navigation2d", "ppo_navigation2d", ("random", "oracle")
    ),
    "gridnavi": Subject(
        "GridNavi",
        "rl2_gridnavi",
        "maml_gridnavi",
        "ppo_gridnavi",
        ("random", "bayes_optimal"),
        ("--train_split=train",),
    ),
    "bernoulli_bandit": Subject(
        "Bernoulli bandit, 100 pulls",
        "rl2_bernoulli_bandit",
        "maml_bernoulli_bandit",
        "ppo_bernoulli_bandit",
        ("random", "gittins", "thompson"),
    ),
    "tabular_mdp": Subject(
        "Tabular MDP", "rl2_tabular_mdp", "maml_tabular_mdp", "ppo_tabular_mdp", ("random", "oracle", "psrl", "opsrl")
    ),
    "cartpole": Subject("CartPole", "rl2_cartpole", "maml_cartpole", "ppo_cartpole", ("random", "oracle", "robust")),
}


def trained(preset: str, options: Sequence[str], seed: int, runs: Path) -> Path | str:
    """The finished run of a preset and seed; trained first if there is none, and none comes with the package."""
    if not options and seed == 1 and f"pretrained:{preset}" in checkpoint.pretrained():
        return f"pretrained:{preset}"
    suffix = "".join("_" + option.rpartition("=")[2] for option in options)
    run = runs / f"{preset}{suffix}_{seed}"
    started = (run / checkpoint.CHECKPOINT).exists()
    if started and checkpoint.load_state(run)[1].iteration == config.read(run / "config.yaml").total_iterations:
        return run
    arguments = ["--resume", str(run)] if started else ["--config", preset, f"--seed={seed}", f"--run_dir={run}"]
    quick = [*([] if started else options), "--eval_every=0", "--final_eval_tasks=0"]
    subprocess.run([sys.executable, "-m", "metarl.train", *arguments, *quick], check=True)
    return run


def line(name: str, runs: Sequence[Path | str]) -> Line:
    """The seeds of a learned agent."""
    agents = [checkpoint.load(run) for run in runs]
    done = [checkpoint.load_state(checkpoint.find(run))[1] for run in runs]
    steps = sum(one.env_steps for one in done) / len(done)
    return Line(name, list(agents), agents[0].family, f"{round(steps, -3):,.0f} steps of training")


def ppo_lines(runs: Sequence[Path | str]) -> list[Line]:
    """What stable-baselines3 trained: updated on each task, without that, and updated from nothing."""
    tuned = line(TUNED, runs)
    multi: list[Agent] = []
    scratch: list[Agent] = []
    for seed, agent in zip(SEEDS, tuned.agents):
        assert isinstance(agent, SB3Agent) and isinstance(agent.config, PPOConfig)
        other = SB3Agent(dataclasses.replace(agent.config, test_steps=0), agent.family, seed)
        other.load_state_dict(agent.state_dict())
        multi.append(other)
        scratch.append(agent.config.build(agent.family, seed, torch.device("cpu")))
    nothing = "no training beforehand"
    return [tuned, Line(SCRATCH, scratch, tuned.family, nothing), Line(MULTI, multi, tuned.family, tuned.budget)]


def lines(subject: Subject, runs: Path) -> list[Line]:
    """Everyone who plays a family."""
    found = []
    for name, preset in ((RL2, subject.rl2), (MAML, subject.maml)):
        found.append(line(name, [trained(preset, subject.options, seed, runs) for seed in SEEDS]))
    found += ppo_lines([trained(subject.ppo, (), seed, runs) for seed in SEEDS])
    family = found[0].family
    return found + [Line(name, [baseline(name, family)], family, "not trained") for name in subject.baselines]


def played(name: str, runs: Path, tasks: int, costly_tasks: int) -> Comparison:
    """The comparison on a family. What was played before with as many tasks is read from ``RUNS/comparison_NAME``."""
    folder = runs / f"comparison_{name}"
    entries: dict[str, dict[str, AdaptationCurve]] = {}
    found = lines(SUBJECTS[name], runs)
    for one in found:
        number = costly_tasks if one.agents[0].costly else tasks
        for split in SPLITS:
            stem = folder / "curves" / f"{one.name}_{split}_{number}".replace(", ", "_").replace(" ", "_")
            if not stem.with_suffix(".json").exists():
                alone = compare([one], [split], number, costly_tasks=number)
                alone.entries[one.name][split].save(stem)
            entries.setdefault(one.name, {})[split] = AdaptationCurve.load(stem)
    comparison = Comparison(entries, {one.name: one.budget for one in found})
    comparison.save(folder)
    return comparison


def cell(row: dict[str, Any]) -> str:
    """The last point with its interval, and the steps on the task before it."""
    low, high = row["interval"]
    return f"{short(row['last'])} [{short(low)}, {short(high)}] after {row['env_steps']:,.0f}"


def overview(comparisons: dict[str, Comparison]) -> list[str]:
    """One row per family and split, one column per kind of agent."""
    rows = [
        f"| family | split | {' | '.join(LEARNED)} | random | told or classical |",
        "|---" * (len(LEARNED) + 4) + "|",
    ]
    for name, comparison in comparisons.items():
        for split in comparison.splits:
            found = {row["agent"]: row for row in comparison.rows(split)}
            others = [f"{agent} {short(found[agent]['last'])}" for agent in SUBJECTS[name].baselines[1:]]
            cells = [cell(found[agent]) for agent in LEARNED] + [short(found["random"]["last"]), ", ".join(others)]
            rows.append(f"| {SUBJECTS[name].title} | {split} | {' | '.join(cells)} |")
    return rows


def experience(comparisons: dict[str, Comparison]) -> list[str]:
    """What each agent had learned with, and on the task itself."""
    rows = ["| family | agent | training | steps on the task before the last point | tasks × seeds |", "|---" * 5 + "|"]
    for name, comparison in comparisons.items():
        for row in comparison.rows("test"):
            if row["agent"] in LEARNED:
                about = f"{row['env_steps']:,.0f} | {row['tasks']} × {row['seeds']}"
                rows.append(
                    f"| {SUBJECTS[name].title} | {row['agent']} | {comparison.budgets[row['agent']]} | {about} |"
                )
    return rows


def draw(comparisons: dict[str, Comparison], path: Path) -> None:
    """A row of panels per family: return of an episode over the steps spent on the task, on each split."""
    figure = Figure(figsize=(13, 3.3 * len(comparisons)), layout="constrained")
    panels = figure.subplots(len(comparisons), len(SPLITS), squeeze=False)
    for (name, comparison), row in zip(comparisons.items(), panels):
        for split, axes in zip(SPLITS, row):
            comparison.draw_curves(axes, split)
            axes.set_title(f"{SUBJECTS[name].title}, {split}")
    entries: dict[str, Any] = {}
    for axes in panels.flat:
        entries |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels())}
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=6, frameon=False)
    figure.savefig(path, dpi=80)


def page(comparisons: dict[str, Comparison], tasks: int, costly_tasks: int) -> str:
    """docs/comparison.md."""
    parts = [
        "# Who adapts how fast",
        HEAD.format(tasks=tasks, costly_tasks=costly_tasks),
        "## What it shows",
        SHOWS,
        "## Overview",
        '"After" gives the number of environment steps on the task before the last point.',
        "\n".join(overview(comparisons)),
        "## Experience",
        "\n".join(experience(comparisons)),
    ]
    for name, comparison in comparisons.items():
        text = comparison.markdown().partition("\n")[2].partition("## Training")[0].strip()
        figure = f"![{SUBJECTS[name].title}](images/adaptation_{name}.png)"
        parts += [f"## {SUBJECTS[name].title}", figure, within_the_page(text)]
    return "\n\n".join(parts) + "\n"


BOUNDS = {"oracle": "Told the task, on average", "random": "Random play, on average"}


def within_the_page(text: str) -> str:
    """The tables of a family as parts of its section, and its bounds as sentences."""
    text = re.sub(r"^## (\w+)\n", r"### On `\1`\n\n", text, flags=re.MULTILINE)
    text = re.sub(r"^## (.*)\n", r"### \1\n\n", text, flags=re.MULTILINE)
    return re.sub(r"^\((oracle|random)\): (.*)$", lambda m: f"{BOUNDS[m[1]]}: {m[2]}.", text, flags=re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"default: {', '.join(SUBJECTS)}")
    parser.add_argument("--runs", type=Path, default=Path("runs/adaptation"))
    parser.add_argument("--tasks", type=int, default=400)
    parser.add_argument("--costly_tasks", type=int, default=16)
    parser.add_argument("--docs", type=Path, default=DOCS, help="where the page and the figures go")
    args = parser.parse_args()
    if wrong := sorted(set(args.families) - set(SUBJECTS)):
        parser.error(f"unknown family {wrong[0]!r}; known: {', '.join(SUBJECTS)}")
    tune()
    comparisons = {}
    for name in args.families or SUBJECTS:
        comparisons[name] = played(name, args.runs, args.tasks, args.costly_tasks)
        comparisons[name].figure().savefig(args.docs / "images" / f"adaptation_{name}.png", dpi=70)
        print(json.dumps({row["agent"]: row["last"] for row in comparisons[name].rows("test")}), flush=True)
    (args.docs / "comparison.md").write_text(page(comparisons, args.tasks, args.costly_tasks), encoding="utf-8")
    draw(comparisons, args.docs / "images" / "adaptation.png")


if __name__ == "__main__":
    main()
