"""Meta-train an agent: ``python -m metarl.train [PRESET_OR_FILE] [--agent.lr 1e-3 …] [--resume RUN_DIR]``.

``metarl train`` is the same program. The loop itself is in `metarl.training.loop`. Exit codes: 0 done, 1 crashed, 2
user error, 3 diverged, 128 + N stopped by signal N.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from rich.console import Console

from metarl.learning.ranks import LostRank, torchrun_rank
from metarl.report.console import complain, in_words, make_console, silent_console
from metarl.training import loop
from metarl.training.config.errors import ConfigError
from metarl.training.config.line import read_line
from metarl.training.config.parsing import Parsed, parse
from metarl.training.divergence import Diverged
from metarl.training.seeds import train_seeds

PROGRAM = "metarl train"  # the program's name in its messages


def main(args: Sequence[str] | None = None) -> int:
    """Run the program. Returns 0; 2 for a user error, 3 for a diverged run, 128 + signal if stopped."""
    given = list(sys.argv[1:] if args is None else args)
    try:
        line = read_line(spelled_out(given))
        console = make_console(line.quiet, width=120, lasting=True) if _prints() else silent_console()
        return train_seeds(line, train, console) if line.seeds else train(parse(line), console)
    except ConfigError as mistake:
        return _end(str(mistake), 2)
    except BrokenPipeError:  # raised by the reader of a usage page; `metarl.cli.main` handles it
        raise
    except OSError as problem:  # such as missing write permission or a full disk
        return _end(in_words(problem), 2)
    except Diverged as reason:
        return _end(str(reason), 3)
    except LostRank as reason:
        complain(f"{PROGRAM}: {reason} The last checkpoint is kept.")
        return 1


program = main


def _end(sentence: str, code: int) -> int:
    """Print why the program ends, and return its exit code. With several processes, only the first prints."""
    if _prints():
        complain(f"{PROGRAM}: {sentence}")
    return code


def _prints() -> bool:
    """Return whether this process prints: under torchrun, only the first one does."""
    return torchrun_rank()[0] == 0


def train(parsed: Parsed, console: Console) -> int:
    """Do one run, and print the location of its curves. Returns the program's exit code."""
    run = loop.train(parsed, console, warn)
    console.print(f"Curves: tensorboard --logdir {shlex.quote(str(run.directory))}", markup=False, soft_wrap=True)
    return 128 + run.signal if run.signal else 0  # the exit code that shells report after a signal


def warn(sentence: str) -> None:
    """Print a warning about the results on standard error, also with --quiet."""
    complain(f"{PROGRAM}: warning: {sentence}")


def spelled_out(args: list[str]) -> list[str]:
    """Expand ``… --help agent MAML`` in a command line to ``… --agent MAML --help``."""
    for at, arg in enumerate(args):
        if arg in ("-h", "--help") and at + 1 < len(args) and not args[at + 1].startswith("-"):
            what, *name = args[at + 1 : at + 3]
            if what not in ("agent", "family") or not name:
                raise ConfigError("--help must come last, or be followed by agent NAME or family NAME.")
            return [*args[:at], f"--{what}", name[0], "--help", *args[at + 3 :]]
    return args
