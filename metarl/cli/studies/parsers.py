"""Parsers of the studies' programs. This module does not import torch, so that a usage page appears at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from metarl.report.console import ALLOW, DEVICE, QUIET, WHICH, Parser, given_path, which

COMMANDS: dict[str, str] = {
    "bench": "measure agents on a suite of families by a fixed protocol, and make a leaderboard",
    "dataset": "record how an agent learns on many tasks, for agents that learn from such histories",
    "stress": "play a trained agent under conditions that it was not trained for",
    "tune": "search hyper-parameters of a preset, by their score on valid",
}
"""The commands, with one line about each; their programs are the modules of this folder with the same names."""


def tune() -> Parser:
    """Make the parser of ``metarl tune``."""
    parser = Parser(
        prog="metarl tune",
        description="Search hyper-parameters with Optuna. The same command continues a stopped study.",
    )
    parser.add_argument("preset", metavar="PRESET_OR_FILE", help="configuration to start from")
    parser.add_argument(
        "--space", required=True, metavar="FILE|NAME", help="fields and values to search, in YAML; or rl2"
    )
    parser.add_argument("--trials", type=int, default=50, metavar="N", help="trials in total (default: 50)")
    parser.add_argument("--target", type=float, metavar="X", help="minimise the seconds of training to this score")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="change another field, for all trials"
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes on this machine (default: 1)")
    parser.add_argument("--storage", metavar="URL", help="Optuna's database (default: sqlite:///OUT/study.db)")
    parser.add_argument("--name", metavar="NAME", help="name of the study in the storage (default: the preset's)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the proposals (default: 0)")
    parser.add_argument(
        "--out", type=given_path, metavar="DIR", help="folder for runs and results (default: runs/tune_PRESET)"
    )
    parser.add_argument("--allow", action="append", default=[], metavar="PACKAGE", help=ALLOW)
    parser.add_argument("--quiet", action="store_true", help=QUIET)
    return parser


def bench() -> Parser:
    """Make the parser of ``metarl bench``."""
    parser = Parser(
        prog="metarl bench",
        description="Train and evaluate agents on a suite of families by a fixed protocol, and make a leaderboard.",
    )
    parser.add_argument("--suite", default="small", metavar="NAME", help="small or full (default: small)")
    parser.add_argument("--problems", nargs="+", metavar="NAME", help="only these problems of the suite")
    parser.add_argument("--agents", nargs="+", metavar="NAME", help="default: random oracle rl2 maml")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="training seeds per agent (default: 1)")
    parser.add_argument(
        "--runs",
        type=given_path,
        default=Path("runs/bench"),
        metavar="DIR",
        help="folder of the runs <preset>_<seed> (default: runs/bench)",
    )
    parser.add_argument("--no_training", action="store_true", help="measure only finished runs and pretrained agents")
    parser.add_argument(
        "--add", nargs="+", type=given_path, default=[], metavar="FILE", help="results.json files of others"
    )
    parser.add_argument("--out", type=given_path, metavar="DIR", help="folder for the results (default: RUNS)")
    parser.add_argument("--quiet", action="store_true", help=QUIET)
    return parser


def dataset() -> Parser:
    """Make the parser of ``metarl dataset``."""
    parser = Parser(
        prog="metarl dataset",
        description="Record the whole learning of an agent on tasks of a split, as histories.",
    )
    parser.add_argument(
        "agent",
        metavar="AGENT",
        help="random, thompson, q_learning, ppo_scratch, …; a run directory or pretrained:NAME",
    )
    parser.add_argument("--family", metavar="FAMILY", help="family to play (default: that of the trained agent)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change an option of the family"
    )
    parser.add_argument("--split", default="train", metavar="NAME", help="split of the tasks (default: train)")
    parser.add_argument(
        "--tasks",
        type=int,
        default=100,
        metavar="N",
        help="distinct tasks; all of a split that has fewer (default: 100)",
    )
    parser.add_argument("--trials", type=int, default=1, metavar="R", help="histories per task (default: 1)")
    parser.add_argument(
        "--episodes", type=int, metavar="K", help="episodes per history or round (default: as the agent or family)"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        metavar="R",
        help="rounds per history, if the agent adapts in rounds (default: as trained)",
    )
    parser.add_argument("--shard_size", type=int, default=64, metavar="N", help="histories per file (default: 64)")
    parser.add_argument("--which", type=which, default="last", metavar="last|best|N", help=WHICH)
    parser.add_argument("--seed", type=int, default=0, help="seed of tasks and noise (default: 0)")
    parser.add_argument("--out", type=given_path, required=True, metavar="DIR", help="a new folder for the files")
    parser.add_argument("--allow", action="append", default=[], metavar="PACKAGE", help=ALLOW)
    parser.add_argument("--device", default="auto", help=DEVICE)
    parser.add_argument("--quiet", action="store_true", help=QUIET)
    return parser


def stress() -> Parser:
    """Make the parser of ``metarl stress``."""
    parser = Parser(
        prog="metarl stress",
        description="Play a trained agent under conditions that it was not trained for, and see what each costs.",
    )
    parser.add_argument("run", metavar="RUN", help="a run directory or pretrained:NAME")
    parser.add_argument("--split", default="test", metavar="NAME", help="split of the tasks (default: test)")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="kinds: 'longer trial', 'task switch', … (default: all)"
    )
    parser.add_argument(
        "--retrained", nargs="+", default=[], metavar="RUN", help="agents that were trained under one of the conditions"
    )
    parser.add_argument("--which", type=which, default="last", metavar="last|best|N", help=WHICH)
    parser.add_argument("--tasks", type=int, default=500, metavar="N", help="tasks, at most (default: 500)")
    parser.add_argument("--seed", type=int, default=0, help="seed of tasks and noise (default: 0)")
    parser.add_argument(
        "--out", type=given_path, metavar="DIR", help="folder for the files (default: RUN/stress/SPLIT)"
    )
    parser.add_argument("--allow", action="append", default=[], metavar="PACKAGE", help=ALLOW)
    parser.add_argument("--device", default="auto", help=DEVICE)
    parser.add_argument("--quiet", action="store_true", help=QUIET)
    return parser


PARSERS: dict[str, Callable[[], Parser]] = {"bench": bench, "dataset": dataset, "stress": stress, "tune": tune}
"""Their parsers."""
