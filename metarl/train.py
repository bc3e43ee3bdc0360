"""The door of ``python -m metarl.train``; the program is `metarl.cli.train`, and the loop `metarl.loop`."""

import sys

from metarl.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
