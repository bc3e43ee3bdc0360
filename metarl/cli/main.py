"""The command ``metarl``, which runs the program named by its first argument.

Usage pages import none of the programs' libraries, so they appear at once. A signal ends a program with a
sentence, also while its libraries are being imported; training finishes its iteration first.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

from metarl.cli import usage
from metarl.report.console import in_words, leave_pipe, prepare_output
from metarl.training.stopping import AtOnce, exit_code
from metarl.training.stopping import name as signal_name


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``metarl NAME …``. Returns the program's exit code, or 2 after one sentence if there is no such program."""
    prepare_output()
    try:
        code = _run(arguments)
        sys.stdout.flush()  # flush here: at exit, Python would not report the cause
    except BrokenPipeError:  # the reader closed the pipe, such as | head
        leave_pipe()
        return 0
    except OSError as problem:  # such as a full disk behind standard output
        leave_pipe()
        print(f"metarl: {in_words(problem)}", file=sys.stderr)
        return 2
    return code


def _run(arguments: Sequence[str] | None) -> int:
    """Print the requested usage page, or run the program."""
    name, *rest = [*(sys.argv[1:] if arguments is None else arguments), ""]
    rest = rest[:-1]
    if name == "help":
        name, rest = (rest[0], ["--help"]) if rest else ("--help", [])
    if name in ("", "-h", "--help"):
        print(usage.overview())
        return 0
    if name in ("-V", "--version"):
        print(f"metarl {importlib.import_module('metarl').__version__}")
        return 0
    if name not in usage.COMMANDS:
        near = difflib.get_close_matches(name.lower(), usage.COMMANDS, n=1)
        meant = f"Did you mean {near[0]!r}? " if near else ""
        print(f"metarl: There is no command {name!r}. {meant}Known: {', '.join(usage.COMMANDS)}.", file=sys.stderr)
        return 2
    if name == "train" and rest in (["-h"], ["--help"]):
        print(usage.train())
        return 0
    if name != "train" and {"-h", "--help"} & {*rest}:
        usage.PARSERS[name]().print_help()
        return 0
    try:
        with AtOnce():
            return int(importlib.import_module(usage.module(name)).program(rest))
    except KeyboardInterrupt as stopped:
        code = exit_code(stopped)
        print(f"metarl {name}: stopped at once by {signal_name(code - 128)}; what was saved is kept.", file=sys.stderr)
        return code
