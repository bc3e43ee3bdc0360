"""Faults that end a run with one sentence: memory, files, a family's wrong results.

Exceptions in the code of a family or an agent are not among them: their author needs the traceback, to which a note is
added that says where it happened.
"""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from metarl.core.errors import WrongResult, add_place
from metarl.core.faults.diagnosis import method_of
from metarl.report.console import in_words
from metarl.training import checkpoint
from metarl.training.config.errors import ConfigError
from metarl.training.config.line import resume_command, start_command
from metarl.training.config.run_config import TrainConfig
from metarl.training.divergence import Diverged, kept

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error codes for a full disk, an exhausted quota, and the limit on file sizes."""


LESS = ("meta_batch_size", "fast_batch_size", "num_steps", "batch_size", "buffer_size")
"""Options of an agent for which smaller values need less memory."""


MORE = ("num_minibatches",)
"""Options of an agent for which larger values need less memory."""


@contextmanager
def in_a_sentence(config: TrainConfig, run_dir: Path, doing: Callable[[], str]) -> Iterator[None]:
    """Convert system faults and wrong results of the family to ConfigError; `doing` says when they happened."""
    try:
        yield
    except WrongResult as wrong:
        add_place(wrong, doing())
        raise ConfigError(f"{wrong} {kept(run_dir)}") from wrong
    except Exception as error:
        if isinstance(error, (ConfigError, Diverged)):
            raise
        if out_of_memory(error):
            raise ConfigError(f"{doing().capitalize()}: {memory_sentence(error, config)} {kept(run_dir)}") from error
        if isinstance(error, OSError) and method_of(error, config.family) is None:
            raise ConfigError(file_sentence(error, config, run_dir)) from error
        add_place(error, doing())
        raise


def out_of_memory(error: BaseException) -> bool:
    """Return True if an error means that the memory of the device or of the computer is exhausted."""
    said = str(error).lower()
    words = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(word in said for word in words)
    )


def memory_sentence(error: BaseException, config: TrainConfig) -> str:
    """Return a message with the options that affect memory and their current values."""
    options = {field.name: getattr(config.agent, field.name) for field in dataclasses.fields(config.agent)}
    less = [f"agent.{name} (now {options[name]})" for name in LESS if options.get(name) is not None]
    more = [f"a larger agent.{name} (now {options[name]})" for name in MORE if name in options]
    if "chunk_length" in options:
        more.append(f"a smaller agent.chunk_length (now {options['chunk_length'] or 'the whole trial'})")
    where = "The GPU's memory" if isinstance(error, torch.OutOfMemoryError) else "Memory"
    parts = [f"lower {' or '.join(less)}", *more, f"fewer eval_tasks (now {config.eval_tasks})"]
    return f"{where} is exhausted. To use less: {', '.join(parts)}."


def file_sentence(error: OSError, config: TrainConfig, run_dir: Path) -> str:
    """Return a message that says which file could not be written, what to do, and how to continue."""
    path = error.filename or str(run_dir)
    what = in_words(OSError(error.errno, error.strerror or str(error), str(path)))
    if error.errno in FULL:
        remedy = f"Free space on the disk of {str(run_dir)!r} (or raise the quota)"
    elif not run_dir.is_dir():
        return f"{what} The run directory was removed during the run: start the run again."
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        remedy = f"Make {str(run_dir)!r} writable"
    else:
        remedy = f"Make sure that {str(run_dir)!r} can be written to"
    if checkpoint.newest(run_dir):
        return f"{what} {remedy}; continue from the last checkpoint with: {resume_command(run_dir, config.allow)}"
    return f"{what} {remedy}; start the run again with: {start_command(run_dir, config.allow)}"
