"""Entry point of ``python -m metarl.train``: the program is `metarl.cli.train`, the loop `metarl.training.loop`."""

import sys
from collections.abc import Sequence

from metarl.cli.main import main as command


def main(args: Sequence[str] | None = None) -> int:
    """Run ``metarl train …`` and return its exit code."""
    return command(["train", *(sys.argv[1:] if args is None else args)])


if __name__ == "__main__":
    sys.exit(main())
