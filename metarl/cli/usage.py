"""Options and usage pages of the programs. This module does not import torch, so that a page appears at once."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

from metarl.cli.studies import parsers as studies
from metarl.report.console import ALLOW, DEVICE, EXIT_CODES, QUIET, WHICH, Parser, given_path, which

COMMANDS = {
    "train": "meta-train an agent and evaluate it on tasks it has never seen",
    "evaluate": "measure how fast a trained agent adapts to unseen tasks",
    "compare": "evaluate several agents and baselines on the same tasks",
    "watch": "draw what a trained agent does on unseen tasks, as a picture or a video",
    "probe": "measure what a trained agent's memory knows about the task",
    "export": "write a trained agent as a program for a small device: ONNX, 8 bits, …",
    **studies.COMMANDS,
    "envs": "list the task families, or show the card of one",
}
"""The commands, with one line about each."""
X = "horizontal axis: experience on the task (default), or steps or seconds of training as recorded by the runs"
CONFIGS = Path(__file__).parents[1] / "configs"


def module(command: str) -> str:
    """Return the name of the module whose ``program`` a command runs."""
    return f"metarl.cli.studies.{command}" if command in studies.COMMANDS else f"metarl.cli.{command}"


def overview() -> str:
    """Return the page of ``metarl --help``."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    head = "usage: metarl COMMAND …\n\nMeta-reinforcement learning: task families, agents, one loop, one evaluator.\n"
    return "\n".join([head, *lines, "", "The options of a command: metarl COMMAND --help"])


def train() -> str:
    """Return the page of ``metarl train --help``, without options, which depend on the agent and the family."""
    presets = ", ".join(sorted(path.stem for path in CONFIGS.glob("*.yaml")))
    return f"""\
usage: metarl train [PRESET_OR_FILE] [--OPTION VALUE …]

Meta-train an agent on a task family and show how fast it adapts to tasks it has never seen.

  metarl train rl2_gridnavi                          a preset, or the path of a YAML file (--config does the same)
  metarl train rl2_gridnavi --agent.lr 1e-3 --seed 2 with other values of some options
  metarl train rl2_gridnavi --seeds 3                three seeds one after the other, their results joined
  metarl train --resume RUN_DIR                      continue a run exactly
  metarl train rl2_gridnavi --run_dir DIR --auto_resume
                                                     start, continue, or find it done: for jobs that are requeued
  metarl train rl2_gridnavi --init_from RUN          start from the parameters of another run's agent
  metarl train rl2_gridnavi --print_config           print the whole configuration and train nothing
  metarl train --agent MAML --family GridNavi        any agent on any family
  metarl train --allow theirs --family Mine          another project's family, which its package registers
  metarl train rl2_gridnavi --quiet                  show only the final tables and errors

  metarl train rl2_gridnavi --help                   every option of the run, the agent and the family
  metarl train --help agent MAML                     the same with the options of another agent
  metarl train --help family GridNavi                or of another task family

{textwrap.fill(EXIT_CODES, 110)}

Presets: {presets}."""


def evaluate() -> Parser:
    """Make the parser of ``metarl evaluate``."""
    parser = Parser(
        prog="metarl evaluate",
        description="Evaluate a trained agent: return per adaptation episode on tasks it was not trained on.",
    )
    parser.add_argument("run", metavar="RUN", help="a run directory, a folder of several seeds, or pretrained:NAME")
    parser.add_argument(
        "--split", nargs="+", metavar="NAME", help="train, valid, test, ood, all (default: all that exist)"
    )
    parser.add_argument("--which", type=which, default="last", metavar="last|best|N", help=WHICH)
    parser.add_argument("--tasks", type=int, default=1000, metavar="N", help="tasks of each split (default: 1000)")
    parser.add_argument(
        "--repeats", type=int, metavar="R", help="trials on each task (default: enough for 20 steps of an episode)"
    )
    parser.add_argument("--episodes", type=int, metavar="K", help="episodes of a trial (default: as trained)")
    parser.add_argument("--rounds", type=int, metavar="R", help="rounds of a trial, for agents that adapt in rounds")
    parser.add_argument("--seed", type=int, default=0, help="seed of tasks and noise (default: 0)")
    parser.add_argument("--greedy", action="store_true", help="take the most likely action instead of sampling")
    parser.add_argument(
        "--out",
        type=given_path,
        metavar="DIR",
        help="folder for the files (default: RUN/evaluations/…, named after the options)",
    )
    parser.add_argument("--allow", action="append", default=[], metavar="PACKAGE", help=ALLOW)
    parser.add_argument("--device", default="auto", help=DEVICE)
    parser.add_argument("--quiet", action="store_true", help=QUIET)
    return parser


def compare() -> Parser:
    """Make the parser of ``metarl compare``."""
    parser = Parser(
        prog="metarl compare",
        description="Compare agents on the same tasks. Runs of one configuration with several seeds are one line.",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="[NAME=] a run directory, a folder of several seeds, or pretrained:NAME"
    )
    parser.add_argument("--baselines", nargs="+", default=[], metavar="NAME", help="random, oracle, thompson, …")
    parser.add_argument("--split", nargs="+", metavar="NAME", help="default: train, test and ood, if they exist")
    parser.add_argument("--tasks", type=int, default=200, metavar="N", help="tasks of each split (default: 200)")
    parser.add_argument(
        "--costly_tasks", type=int, default=20, metavar="N", help="tasks for agents that train on each (default: 20)"
    )
    parser.add_argument("--repeats", type=int, metavar="R", help="trials on each task (default: as metarl.evaluate)")
    parser.add_argument("--rounds", type=int, metavar="R", help="rounds of a trial, for agents that adapt in rounds")
    parser.add_argument("--seed", type=int, default=0, help="seed of tasks and noise (default: 0)")
    parser.add_argument("--greedy", action="store_true", help="take the most likely action instead of sampling")
    parser.add_argument("--suite", action="store_true", help="one table for NAME=RUN agents, each on several families")
    parser.add_argument("--x", choices=("adaptation", "train_steps", "time"), default="adaptation", help=X)
    parser.add_argument(
        "--out", type=given_path, metavar="DIR", help="folder for the files (default: runs/comparison_TIME)"
    )
    parser.add_argument("--allow", action="append", default=[], metavar="PACKAGE", help=ALLOW)
    parser.add_argument("--device", default="auto", help=DEVICE)
    parser.add_argument("--quiet", action="store_true", help=QUIET)
    return parser


def watch() -> Parser:
    """Make the parser of ``metarl watch``."""
    parser = Parser(
        prog="metarl watch",
        description="Draw whole trials of a trained agent: on the tasks with the lowest, median and highest score.",
    )
    parser.add_argument("run", metavar="RUN", help="a run directory or pretrained:NAME")
    parser.add_argument("--video", type=given_path, metavar="FILE", help="animate a trial, in a .gif or an .mp4")
    parser.add_argument(
        "--belief", type=given_path, metavar="FILE", help="draw where reward is expected along a trial, in a .png"
    )
    parser.add_argument(
        "--embedding", type=given_path, metavar="FILE", help="draw PEARL's embedding of the tasks, in a .png"
    )
    parser.add_argument(
        "--trial",
        choices=("lowest", "median", "highest"),
        default="median",
        help="the trial of the video and of the belief (default: median)",
    )
    parser.add_argument("--split", default="test", metavar="NAME", help="split of the tasks (default: test)")
    parser.add_argument("--which", type=which, default="last", metavar="last|best|N", help=WHICH)
    parser.add_argument(
        "--tasks", type=int, default=50, metavar="N", help="tasks to choose the three from (default: 50)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of tasks and noise (default: 0)")
    parser.add_argument("--greedy", action="store_true", help="take the most likely action instead of sampling")
    parser.add_argument("--out", type=given_path, metavar="FILE", help="the picture (default: RUN/watch/SPLIT.png)")
    parser.add_argument("--allow", action="append", default=[], metavar="PACKAGE", help=ALLOW)
    parser.add_argument("--device", default="auto", help=DEVICE)
    return parser


def probe() -> Parser:
    """Make the parser of ``metarl probe``."""
    parser = Parser(
        prog="metarl probe",
        description="Decode the exact belief and the task from a trained agent's memory, step by step of the trial.",
    )
    parser.add_argument("run", metavar="RUN", help="a run directory or pretrained:NAME")
    parser.add_argument(
        "--split", default="test", metavar="NAME", help="split of the tasks and of the prior (default: test)"
    )
    parser.add_argument("--which", type=which, default="last", metavar="last|best|N", help=WHICH)
    parser.add_argument(
        "--tasks", type=int, default=1000, metavar="N", help="trials, a third of them held out (default: 1000)"
    )
    parser.add_argument(
        "--steps", type=int, nargs="+", metavar="N", help="numbers of actions after which to probe (default: 12)"
    )
    parser.add_argument("--part", metavar="NAME", help="part of the memory: state, output, … (default: the first)")
    parser.add_argument(
        "--hold_out", metavar="tasks|trials", help="default: tasks; trials where the belief is about a list of tasks"
    )
    parser.add_argument("--belief", metavar="RUN", help="Belief agent with which to compare actions and return")
    parser.add_argument("--seed", type=int, default=0, help="seed of tasks and noise (default: 0)")
    parser.add_argument("--out", type=given_path, metavar="DIR", help="folder for the files (default: RUN/probes/…)")
    parser.add_argument("--allow", action="append", default=[], metavar="PACKAGE", help=ALLOW)
    parser.add_argument("--device", default="auto", help=DEVICE)
    parser.add_argument("--quiet", action="store_true", help=QUIET)
    return parser


def export() -> Parser:
    """Make the parser of ``metarl export``."""
    parser = Parser(
        prog="metarl export",
        description="Write what a trained agent computes between two actions as a program for a small device.",
    )
    parser.add_argument("run", metavar="RUN", help="a run directory or pretrained:NAME")
    parser.add_argument(
        "--format",
        choices=("onnx", "torch"),
        default="onnx",
        help="onnx, or torch: torch.export (default: onnx)",
    )
    smaller = parser.add_mutually_exclusive_group()
    smaller.add_argument("--int8", action="store_true", help="quantise weights to 8 bits, and inputs on the fly")
    smaller.add_argument("--fp16", action="store_true", help="round weights to 16 bits")
    parser.add_argument(
        "--prune",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of each matrix's weights to set to 0, smallest first",
    )
    parser.add_argument("--check", action="store_true", help="compare the program with the agent over one trial")
    parser.add_argument(
        "--tolerance", type=float, metavar="X", help="tolerance of the check (default: by type of the weights)"
    )
    parser.add_argument(
        "--steps",
        type=int,
        metavar="K",
        help="gradient steps, for an agent that takes some (default: as trained)",
    )
    parser.add_argument("--split", metavar="NAME", help="split of the task they are taken on (default: test)")
    parser.add_argument("--task", type=int, metavar="N", help="number of the task in an evaluation (default: 0)")
    parser.add_argument("--which", type=which, default="last", metavar="last|best|N", help=WHICH)
    parser.add_argument("--seed", type=int, default=0, help="seed of tasks and noise (default: 0)")
    parser.add_argument("--out", type=given_path, metavar="DIR", help="folder for the files (default: RUN/exports/…)")
    parser.add_argument("--allow", action="append", default=[], metavar="PACKAGE", help=ALLOW)
    parser.add_argument("--quiet", action="store_true", help=QUIET)
    return parser


def envs() -> Parser:
    """Make the parser of ``metarl envs``."""
    parser = Parser(prog="metarl envs", description="List the task families, or show the card of one.")
    parser.add_argument(
        "family", nargs="?", metavar="FAMILY", help="an id, the name inside it (GridNavi), or module:Class"
    )
    parser.add_argument(
        "--allow", "--import", dest="modules", action="append", default=[], metavar="PACKAGE", help=ALLOW
    )
    return parser


PARSERS: dict[str, Callable[[], Parser]] = {
    "evaluate": evaluate,
    "compare": compare,
    "watch": watch,
    "probe": probe,
    "export": export,
    **studies.PARSERS,
    "envs": envs,
}
"""The parsers of all programs but ``train``, whose options depend on the agent and the family."""
