"""``python -m metarl``: the command ``metarl`` where it is not on the path."""

import sys

from metarl.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
