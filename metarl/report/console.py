"""Terminal output of the programs: ``--quiet``, pipes without control characters, user errors."""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console, RenderableType
from rich.table import Table

ALLOW = "Import this package, which registers a family or an agent (may be given several times)."
"""The help of ``--allow``."""


QUIET = "Show only the final tables, and errors on standard error."
"""The help of ``--quiet``."""


WHICH = "the checkpoint: last, best on valid, or the iteration of a kept one (default: last)"
"""The help of ``--which``."""


DEVICE = "cpu, cuda or auto (default: auto)"
"""The help of ``--device``."""


EXIT_CODES = (
    "Exit codes: 0 done, 1 crashed (with a traceback), 2 a usage error, or a file that cannot be read or "
    "written, 3 diverged, 128 + N stopped by the signal N."
)
"""The exit codes of the programs, for their help."""


NARROW = 80
"""Terminal width below which tables are no longer fitted to it."""


def which(text: str) -> str | int:
    """Convert the value of ``--which``."""
    if text.isascii() and text.isdigit() and len(text) <= 16:
        return int(text)
    if text not in ("last", "best"):
        raise argparse.ArgumentTypeError(f"must be last, best or the number of an iteration, got {text!r}")
    return text


def given_path(text: str) -> Path:
    """Convert the value of a path option. Rejects an empty value, such as ``"$UNSET"``: it would mean this folder."""
    if not text:
        raise argparse.ArgumentTypeError("needs a path, got ''")
    return Path(text)


class PipeConsole(Console):
    """A console that becomes silent when the reader of its pipe has left (``| head``); the program continues."""

    lasting = False
    """True for a program whose results are in files: it continues even if standard output is on a full disk."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; if output fails and the program continues, report it once on standard error."""
        try:
            super().print(*objects, **options)
        except OSError as error:
            if not self.lasting:
                raise
            leave_pipe()
            complain(f"warning: standard output can no longer be written ({error.strerror}); the program goes on.")

    def on_broken_pipe(self) -> None:
        """Continue without output, since rich's exit would lose unsaved results."""
        leave_pipe()


def complain(sentence: str) -> None:
    """Print a sentence on standard error, if that can be written."""
    with contextlib.suppress(OSError):  # also on a full disk: > log 2>&1
        print(sentence, file=sys.stderr)


def leave_pipe() -> None:
    """Discard further output."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def prepare_output() -> None:
    """Make standard output accept every character ("?" if its encoding lacks it), and reopen it if it was closed."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell: >&-
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  (for the rest of the process)
    reconfigure = getattr(sys.stdout, "reconfigure", None)  # replacements in tests may lack it
    if reconfigure is not None:
        reconfigure(errors="replace")


def make_console(quiet: bool = False, width: int | None = None, lasting: bool = False) -> Console:
    """Make a console: `width` columns if not a terminal (None: 80), and only `show`'s tables if `quiet`.

    With `lasting` the program continues if output fails.

    A pipe or file gets no control characters, and "?" for characters that its encoding lacks: a run should not
    fail because its last line has a sparkline. A notebook is treated as a
    pipe (its kernel sets FORCE_COLOR, which would make rich draw progress bars there).
    """
    prepare_output()
    if sys.stdout.isatty():
        console = PipeConsole(quiet=quiet)
    else:
        console = PipeConsole(quiet=quiet, width=width, force_terminal=False, force_jupyter=False)
    console.lasting = lasting
    if console.width < 1:  # COLUMNS=0: rich would show nothing
        console.width = 80
    return console


def silent_console() -> Console:
    """Make a console that shows nothing, not even tables."""
    return Console(file=io.StringIO(), quiet=True, force_terminal=False, force_jupyter=False)


def show(console: Console, table: Table) -> None:
    """Print the table of a result, also on a quiet console, without cutting numbers on a narrow terminal."""
    quiet, console.quiet = console.quiet, False
    try:
        if console.width < NARROW:  # let the terminal wrap lines: rich would cut the numbers
            console.print(text_of(table, NARROW), markup=False, highlight=False, soft_wrap=True, end="")
        else:
            console.print(table)
    finally:
        console.quiet = quiet


def text_of(shown: RenderableType, width: int = 120) -> str:
    """Render a table, or any rich renderable, as plain text for a file: no colours, no line longer than `width`.

    In a notebook, ``Console(file=…)`` would show its text below the cell instead of writing it.
    """
    file = io.StringIO()
    plain = Console(
        file=file, width=width, force_jupyter=False, force_terminal=False, color_system=None, legacy_windows=False
    )
    plain.print(shown)
    return file.getvalue()


@contextlib.contextmanager
def files_in(folder: Path, make: Callable[[Path], Path | None] | None = None) -> Iterator[Path]:
    """Create the folder for a program's files with `make` (default: `make_folder`); remove it if the block fails.

    It is removed, with the parent folders that were created for it, only if it is empty: a rejected request leaves
    nothing behind.
    """
    there = {each for each in (folder, *folder.parents) if each.exists()}
    made = (make or make_folder)(folder) or folder
    try:
        yield made
    except BaseException:
        with contextlib.suppress(OSError):  # not empty
            for each in (made, *made.parents):
                if each in there:
                    break
                each.rmdir()
        raise


def make_folder(folder: Path) -> None:
    """Create the folder for a program's files before anything is played. Raises ValueError if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink(missing_ok=True)  # another program may do the same concurrently
    except OSError as error:
        raise ValueError(f"The folder {str(folder)!r} cannot be written to: {_why(error)}.") from error


def new_folder(folder: Path) -> Path:
    """Create a new folder: `folder`, or ``folder_2``, ``folder_3`` …; return its path.

    Concurrent programs get different folders. Raises ValueError if none can be created.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            tried = folder if number == 1 else folder.with_name(f"{folder.name}_{number}")
            try:
                tried.mkdir()
            except FileExistsError:
                continue
            make_folder(tried)
            return tried
    except OSError as error:
        raise ValueError(f"The folder {str(folder)!r} cannot be made: {_why(error)}.") from error
    raise AssertionError("there are always more numbers")


def _why(error: OSError) -> str | None:
    """Return the reason why a folder cannot be created."""
    files = {FileExistsError: "there is a file of this name", NotADirectoryError: "a folder of its path is a file"}
    return files.get(type(error), error.strerror)


def at_home(value: Any) -> Any:
    """Expand ~ in a path, a string or a list of them, since shells do not in ``--out=~/x``.

    Nothing else is expanded: shells have already replaced their variables, so a $ is literal.
    """
    if isinstance(value, list):
        return [at_home(each) for each in value]
    return type(value)(os.path.expanduser(value)) if isinstance(value, str | Path) else value


def in_words(error: OSError) -> str:
    """Describe an OSError and its file in one sentence."""
    what = error.strerror or str(error) or type(error).__name__
    return f"{what}: {str(error.filename)!r}." if error.filename else f"{what}."


_NUMBERS = {"int": "a whole number", "float": "a number"}


class Parser(argparse.ArgumentParser):
    """A parser that reports an error in one sentence, without the usage (see ``--help``).

    Options cannot be abbreviated: a prefix such as ``--task`` may be ambiguous, or become a new option.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        from metarl.core.errors import brief, printable  # imported here, so that usage pages do not need NumPy

        shown = printable(message.removeprefix("argument "))
        shown = re.sub(r": invalid (int|float) value:", lambda found: f" must be {_NUMBERS[found[1]]}, got", shown)
        shown = re.sub(r": expected (one|at least one) argument$", " needs a value", shown)
        self.exit(2, f"{self.prog.removeprefix('python -m ')}: {shown if len(shown) <= 280 else brief(shown, 200)}\n")

    def read(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """Parse the options, with ~ expanded; the error for an unknown option names the closest known one."""
        options, extra = self.parse_known_args(arguments)
        for name, value in vars(options).items():
            setattr(options, name, at_home(value))
        if extra and not extra[0].startswith("-"):
            self.error(f"{extra[0]!r} is an unexpected argument; see --help.")
        if extra:
            from metarl.core.errors import unknown  # imported here, so that usage pages do not need torch

            known = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
            self.error(unknown("option", extra[0].partition("=")[0], known, see=f"{self.prog} --help"))
        return options
