"""Make the leaderboard of docs/bench.md from the stored results::

    metarl bench --suite full --agents … --seeds 3 --no_training --runs RUNS --out OUT
    cp OUT/results.json benchmarks/results/bench.json
    python -m docs.make_bench

The page with figures, leaderboard.html, is made from the same file when the site is built.
"""

from __future__ import annotations

from pathlib import Path

from docs.make_results import between
from metarl.studies.bench.board import Board
from metarl.studies.bench.protocol import SUITES
from metarl.studies.bench.rows import read

DOCS = Path(__file__).parent
STORED = DOCS.parent / "benchmarks" / "results" / "bench.json"


def tables() -> str:
    """Return the leaderboard of the small suite's agents together, and a table for each problem."""
    rows = read(STORED)
    small = Board([row for row in rows if row.problem in SUITES["small"]])
    suite = small.suite()
    together = "" if suite is None else f"### The small suite, {len(suite.curves)} problems\n\n{suite.markdown()}\n"
    problems = Board(rows).markdown()
    return together + problems[problems.index("\n## ", problems.index("\n## ") + 1) :].replace("\n## ", "\n### ")


def document() -> str:
    """Return the page with the tables as they should be."""
    return between((DOCS / "bench.md").read_text(encoding="utf-8"), "bench", f"\n{tables().strip()}\n")


def main() -> None:
    """Write the tables into the page."""
    (DOCS / "bench.md").write_text(document(), encoding="utf-8")
    print("Wrote docs/bench.md")


if __name__ == "__main__":
    main()
