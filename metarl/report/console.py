"""The terminal as the programs use it: what ``--quiet`` leaves, pipes without control characters, mistakes."""

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
"""Columns below which a table is no longer fitted to the terminal."""


def which(text: str) -> str | int:
    """Convert the value of ``--which``."""
    if text.isascii() and text.isdigit() and len(text) <= 16:
        return int(text)
    if text not in ("last", "best"):
        raise argparse.ArgumentTypeError(f"must be last, best or the number of an iteration, got {text!r}")
    return text


def given_path(text: str) -> Path:
    """Convert the value of an option for a path. An empty one, such as that of ``"$UNSET"``, would mean this folder."""
    if not text:
        raise argparse.ArgumentTypeError("needs a path, got ''")
    return Path(text)


class PipeConsole(Console):
    """A console that shows nothing more once the reader of its pipe has left (``| head``): the program goes on."""

    lasting = False
    """True for a program whose results are in files: it goes on also when standard output is on a full disk."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; what cannot be written any more is said once, on standard error, if the program is to go on."""
        try:
            super().print(*objects, **options)
        except OSError as error:
            if not self.lasting:
                raise
            leave_pipe()
            complain(f"warning: standard output can no longer be written ({error.strerror}); the program goes on.")

    def on_broken_pipe(self) -> None:
        """Go on without output, in place of rich's exit, which would lose what is not yet saved."""
        leave_pipe()


def complain(sentence: str) -> None:
    """Print a sentence on standard error, if that can be written."""
    with contextlib.suppress(OSError):  # on a full disk, too: > log 2>&1
        print(sentence, file=sys.stderr)


def leave_pipe() -> None:
    """Send what is still printed nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def prepare_output() -> None:
    """Let standard output take every character, "?" for one that its encoding lacks, and be there if it was closed."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell: >&-
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  (for the rest of the process)
    reconfigure = getattr(sys.stdout, "reconfigure", None)  # what stands in for it in tests may have none
    if reconfigure is not None:
        reconfigure(errors="replace")


def make_console(quiet: bool = False, width: int | None = None, lasting: bool = False) -> Console:
    """Standard output: `width` columns where it is no terminal (None: 80), and nothing but `show`'s tables if `quiet`.

    With `lasting` the program goes on when it can no longer be written.

    A pipe or file gets no control characters, and "?" for a character that its encoding does not have: a run should
    not end in an error because its last line has a sparkline. A notebook is treated as a
    pipe (its kernel sets FORCE_COLOR, which would make rich draw progress bars there).
    """
    prepare_output()
    if sys.stdout.isatty():
        console = PipeConsole(quiet=quiet)
    else:
        console = PipeConsole(quiet=quiet, width=width, force_terminal=False, force_jupyter=False)
    console.lasting = lasting
    if console.width < 1:  # COLUMNS=0, with which rich would show nothing
        console.width = 80
    return console


def silent_console() -> Console:
    """Make a console that shows nothing, not even tables."""
    return Console(file=io.StringIO(), quiet=True, force_terminal=False, force_jupyter=False)


def show(console: Console, table: Table) -> None:
    """Print the table of a result, on a quiet console too, and with whole numbers where the terminal is narrow."""
    quiet, console.quiet = console.quiet, False
    try:
        if console.width < NARROW:  # the terminal breaks the lines, where rich would cut the numbers
            console.print(text_of(table, NARROW), markup=False, highlight=False, soft_wrap=True, end="")
        else:
            console.print(table)
    finally:
        console.quiet = quiet


def text_of(shown: RenderableType, width: int = 120) -> str:
    """Write a table, or whatever rich can show, as plain text for a file: no colours, and no line longer than `width`.

    A plain ``Console(file=…)`` writes nothing in a notebook, where it shows its text below the cell instead.
    """
    file = io.StringIO()
    plain = Console(
        file=file, width=width, force_jupyter=False, force_terminal=False, color_system=None, legacy_windows=False
    )
    plain.print(shown)
    return file.getvalue()


@contextlib.contextmanager
def files_in(folder: Path, make: Callable[[Path], Path | None] | None = None) -> Iterator[Path]:
    """Make the folder for a program's files by `make` (default: `make_folder`); take it away if the block fails.

    It is taken away, with the folders above it that were made for it, only while nothing is in it: a request that is
    refused leaves nothing behind.
    """
    there = {each for each in (folder, *folder.parents) if each.exists()}
    made = (make or make_folder)(folder) or folder
    try:
        yield made
    except BaseException:
        with contextlib.suppress(OSError):  # one that is not empty
            for each in (made, *made.parents):
                if each in there:
                    break
                each.rmdir()
        raise


def make_folder(folder: Path) -> None:
    """Make the folder for a program's files, before anything is played for them. Raises ValueError where it cannot."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink(missing_ok=True)  # another program may do the same
    except OSError as error:
        raise ValueError(f"The folder {str(folder)!r} cannot be written to: {_why(error)}.") from error


def new_folder(folder: Path) -> Path:
    """Make a folder that nobody has: `folder`, or ``folder_2``, ``folder_3`` … Returns which.

    Programs that ask for the same one at the same time get one each. Raises ValueError where none can be made.
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
    """Say why a folder cannot be made."""
    files = {FileExistsError: "there is a file of this name", NotADirectoryError: "a folder of its path is a file"}
    return files.get(type(error), error.strerror)


def at_home(value: Any) -> Any:
    """Return a path, a text or a list of them with ~ as the user's home, which shells do not see in ``--out=~/x``.

    Nothing else in a path is special: a $ is a $, since shells have replaced their variables before we see them.
    """
    if isinstance(value, list):
        return [at_home(each) for each in value]
    return type(value)(os.path.expanduser(value)) if isinstance(value, str | Path) else value


def in_words(error: OSError) -> str:
    """Say in one sentence what happened to which file."""
    what = error.strerror or str(error) or type(error).__name__
    return f"{what}: {str(error.filename)!r}." if error.filename else f"{what}."


_NUMBERS = {"int": "a whole number", "float": "a number"}


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one sentence, without the usage, which ``--help`` gives.

    An option is written out: a beginning such as ``--task`` might be meant for another one, or become one.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        from metarl.core.errors import brief, printable  # here, since a usage page does without NumPy

        shown = printable(message.removeprefix("argument "))
        shown = re.sub(r": invalid (int|float) value:", lambda found: f" must be {_NUMBERS[found[1]]}, got", shown)
        shown = re.sub(r": expected (one|at least one) argument$", " needs a value", shown)
        self.exit(2, f"{self.prog.removeprefix('python -m ')}: {shown if len(shown) <= 280 else brief(shown, 200)}\n")

    def read(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """Read the options, with ~ as home; the sentence about an unknown one names the nearest that there is."""
        options, extra = self.parse_known_args(arguments)
        for name, value in vars(options).items():
            setattr(options, name, at_home(value))
        if extra and not extra[0].startswith("-"):
            self.error(f"{extra[0]!r} is an unexpected argument; see --help.")
        if extra:
            from metarl.core.errors import unknown  # here, since a usage page does without torch

            known = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
            self.error(unknown("option", extra[0].partition("=")[0], known, see=f"{self.prog} --help"))
        return options
