"""Return against the environment steps of training: RL², MAML, recurrent SAC and PEARL on two families.

``python -m benchmarks.sample_efficiency [--runs DIR] [--out DIR] [--x train_steps]`` reads the runs of the presets
below in DIR, which are named ``PRESET_SEED`` as `benchmarks.presets` names them, or folders ``PRESET`` of several
seeds. It trains nothing: presets without a run that has a history are named with the command that trains one. It prints
tables and writes what ``metarl compare --x train_steps`` writes. MAML's preset is for the tasks of its paper,
HalfCheetahVelMAML, and so has a panel of its own; on SparsePointRobot it has none.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from metarl.cli.histories import print_comparison, read_comparison
from metarl.report.console import make_console
from metarl.report.efficiency.history import METRICS
from metarl.report.efficiency.training_curve import AXES

PRESETS = {
    "RL²": ("rl2_half_cheetah_vel", "rl2_sparse_point_robot"),
    "MAML": ("maml_half_cheetah_vel",),
    "recurrent SAC": ("sac_half_cheetah_vel", "sac_sparse_point_robot"),
    "PEARL": ("pearl_half_cheetah_vel", "pearl_sparse_point_robot"),
}
"""The presets of every agent."""


def find_runs(folder: Path, preset: str) -> list[Path]:
    """Return the run directories of a preset in `folder` that have a history, by name."""
    found = [path.parent for path in folder.glob(f"{preset}/*/{METRICS}")]
    found += [path.parent for path in folder.glob(f"{preset}_*/{METRICS}") if _is_seed(path.parent.name, preset)]
    return sorted(found)


def _is_seed(name: str, preset: str) -> bool:
    return name.removeprefix(f"{preset}_").isdigit()


def find_all(folder: Path) -> tuple[list[str], list[str]]:
    """Return the runs of all presets as ``NAME=RUN``, and the presets that have none."""
    runs, missing = [], []
    for name, presets in PRESETS.items():
        for preset in presets:
            found = find_runs(folder, preset)
            runs += [f"{name}={run}" for run in found]
            missing += [] if found else [preset]
    return runs, missing


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program. Returns 0, or 2 after one sentence on standard error where there is no run, or a wrong one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/presets"), metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path("runs/sample_efficiency"), metavar="DIR")
    parser.add_argument("--x", choices=list(AXES), default="train_steps")
    args = parser.parse_args(arguments)
    runs, missing = find_all(args.runs)
    for preset in missing:
        command = f"metarl train {preset} --seed 1 --run_dir {args.runs / f'{preset}_1'}"
        print(f"No run of {preset} with a history in {args.runs}; train one: {command}")
    try:
        comparison = read_comparison(runs, args.x)
        console = make_console(width=100)
        print_comparison(comparison, console)
        print("Written:", *(str(path) for path in comparison.save(args.out)))
    except (ValueError, OSError) as mistake:
        print(f"benchmarks.sample_efficiency: {mistake}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
