"""``python -m metarl``: the command ``metarl``, for when it is not on the path."""

import sys

from metarl.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
