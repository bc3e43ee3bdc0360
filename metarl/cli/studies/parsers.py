"""Parsers of the studies' programs. This module does not import torch, so that a usage page appears at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from metarl.report.console import ALLOW, DEVICE, QUIET, WHICH, Parser, which

COMMANDS: dict[str, str] = {
    "bench": "measure agents on a suite of families by a fixed protocol, and make a leaderboard",
    "stress": "play a trained agent under conditions that it was not trained for",
    "tune": "search hyper-parameters of a preset, by their score on valid",
}
"""The commands, with one line about each; their programs are the modules of this folder with the same names."""


def tune() -> Parser:
    """Make the parser of ``metarl tune``."""
    parser = Parser(
        prog="metarl tune",
        description="Search hyper-parameters with Optuna. The same command goes on with a study that was stopped.",
    )
    parser.add_argument("preset", metavar="PRESET_OR_FILE", help="what to start from: its other fields stay")
    parser.add_argument("--space", required=True, metavar="FILE|NAME", help="fields and their values, in YAML; or rl2")
    parser.add_argument("--trials", type=int, default=50, metavar="N", help="of the study, in all (default: 50)")
    parser.add_argument("--target", type=float, metavar="X", help="minimise the seconds of training to this score")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="change another field, for all trials"
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes on this machine (default: 1)")
    parser.add_argument("--storage", metavar="URL", help="Optuna's database (default: sqlite:///OUT/study.db)")
    parser.add_argument("--name", metavar="NAME", help="of the study in the storage (default: that of the preset)")
    parser.add_argument("--seed", type=int, default=0, help="of the proposals (default: 0)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for runs and results (default: runs/tune_PRESET)")
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
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="training seeds of each (default: 1)")
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs/bench"),
        metavar="DIR",
        help="runs <preset>_<seed> (default: runs/bench)",
    )
    parser.add_argument("--no_training", action="store_true", help="only finished runs and the agents of the package")
    parser.add_argument("--add", nargs="+", type=Path, default=[], metavar="FILE", help="results.json of others")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for the results (default: RUNS)")
    parser.add_argument("--quiet", action="store_true", help=QUIET)
    return parser


def stress() -> Parser:
    """Make the parser of ``metarl stress``."""
    parser = Parser(
        prog="metarl stress",
        description="Play a trained agent under conditions that it was not trained for, and see what each costs.",
    )
    parser.add_argument("run", metavar="RUN", help="a run directory or pretrained:NAME")
    parser.add_argument("--split", default="test", metavar="NAME", help="whose tasks (default: test)")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="kinds: 'longer trial', 'task switch', … (default: all)"
    )
    parser.add_argument(
        "--retrained", nargs="+", default=[], metavar="RUN", help="agents that were trained under one of the conditions"
    )
    parser.add_argument("--which", type=which, default="last", metavar="last|best|N", help=WHICH)
    parser.add_argument("--tasks", type=int, default=500, metavar="N", help="at most (default: 500)")
    parser.add_argument("--seed", type=int, default=0, help="of tasks and noise (default: 0)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for the files (default: RUN/stress/SPLIT)")
    parser.add_argument("--allow", action="append", default=[], metavar="PACKAGE", help=ALLOW)
    parser.add_argument("--device", default="auto", help=DEVICE)
    parser.add_argument("--quiet", action="store_true", help=QUIET)
    return parser


PARSERS: dict[str, Callable[[], Parser]] = {"bench": bench, "stress": stress, "tune": tune}
"""Their parsers."""
