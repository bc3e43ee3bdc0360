"""The entry point of ``python -m metarl.train``; `metarl.cli.train` is the program, `metarl.training.loop` the loop."""

import sys
from collections.abc import Sequence

from metarl.cli.main import main as command


def main(args: Sequence[str] | None = None) -> int:
    """``metarl train …``; returns its exit code."""
    return command(["train", *(sys.argv[1:] if args is None else args)])


if __name__ == "__main__":
    sys.exit(main())
