"""The arrows between modules point down: DESIGN's "Layers, low to high", checked on the parsed imports.

A module imports from strictly lower layers, and from inside its own folder. A new module
has to be placed in `LAYERS` first; that is a design decision, so the failing test is the reminder to take it.
"""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "metarl"

LAYERS: tuple[tuple[str, ...], ...] = (
    ("rng", "tree", "options", "runtime", "stats", "profiling", "capture", "provenance", "finite", "colours", "sketch"),
    ("units",),
    ("errors", "divergence", "stopping"),
    ("family", "distributed", "step_curve"),
    ("registry", "curve", "task_checks", "numbering"),
    ("gym_ids",),
    ("console", "table", "family_contract"),
    ("envs", "batch_env", "images", "pictures", "distributions"),
    ("fast", "video"),
    ("stream", "encoder"),
    ("rollout", "gym_env", "sb3_env", "compiled"),
    ("estimators", "arguments", "family_extras"),
    ("nets", "losses", "trust_region", "agent"),
    ("memories", "player"),
    ("agents",),
    ("config_errors",),
    ("config_file", "config_classes"),
    ("config_settings",),
    ("config",),
    ("checkpoint",),
    ("log",),
    ("evaluator",),
    ("comparison", "suite"),
    ("contenders", "replay"),
    ("best_arm",),
    ("behaviour",),
    ("agent_contract",),
    ("testing",),
    ("run_checks", "run_folder", "final_evaluation"),
    ("loop", "seeds"),
    ("runs",),
    ("cli",),
    ("train", "__main__", "__init__"),
)

# Narrower than their layer: these may import nothing else from metarl.
ONLY: dict[str, set[str]] = {
    "distributions": {"rng"},
    "envs": {"errors", "family", "options", "registry", "rng", "sketch", "tree"},
    "gym_env": {"errors", "family", "registry", "rng", "stream", "tree"},
    "sb3_env": {"family", "rng", "stream", "tree"},
}

FOLDERS = ("agents", "cli", "envs", "fast")

RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def unit(path: Path) -> str:
    """The name in the table: a module of metarl/, or the folder for files of a folder."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_units(source: str, package: str) -> set[str]:
    """What `source`, a module of `package`, imports from metarl, wherever in the file the import stands."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base]).rstrip(".")
            if base == "metarl":
                names |= {f"metarl.{alias.name}" for alias in node.names}
            else:
                names.add(base)
    paths = [name.split(".") for name in names]
    return {path[1] if len(path) > 1 else "__init__" for path in paths if path[0] == "metarl"}


def offences(importer: str, imported: set[str]) -> list[str]:
    found = []
    for name in sorted(imported):
        if name == importer and importer in FOLDERS:
            continue
        if name not in RANK:
            # A name re-exported by metarl/__init__.py, or a module that nobody has placed.
            found.append(f"{importer} imports metarl.{name}: import it from the module that defines it")
        elif RANK[name] >= RANK[importer]:
            found.append(f"{importer} imports {name}: an arrow upward")
        elif importer in ONLY and name not in ONLY[importer]:
            found.append(f"{importer} imports {name}: it may import only {sorted(ONLY[importer])}")
    return found


MODULES = sorted([*PACKAGE.glob("*.py"), *(path for folder in FOLDERS for path in (PACKAGE / folder).rglob("*.py"))])


def test_every_module_has_a_layer():
    assert len(RANK) == sum(map(len, LAYERS)), "a name stands in two layers"
    unplaced = sorted({unit(path) for path in MODULES} - set(RANK))
    assert not unplaced, f"place these in LAYERS: {unplaced}"
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages <= {*FOLDERS}, "a new package: place it here and in LAYERS"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path):
    package = ".".join(["metarl", *path.parent.relative_to(PACKAGE).parts])
    importer = unit(path)
    if importer not in RANK:
        pytest.skip("not placed yet: test_every_module_has_a_layer says so")
    found = offences(importer, imported_units(path.read_text(encoding="utf-8"), package))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("import metarl", {"__init__"}),
        ("import metarl.train as t", {"train"}),
        ("from metarl import rng, family", {"rng", "family"}),
        ("from metarl.agents.maml import Maml", {"agents"}),
        ("from .other import thing", {"agents"}),
        ("from . import other", {"agents"}),
        ("from ..train import main", {"train"}),
        ("from .. import train", {"train"}),
        ("def f():\n    from metarl import train", {"train"}),
        ("import metarlish, torch", set()),
    ],
)
def test_the_parser_sees_every_form(line: str, expected: set[str]):
    assert imported_units(line, "metarl.agents") == expected


def test_the_rules_bite():
    assert offences("rng", {"family"})
    assert offences("agents", {"train"})
    assert offences("estimators", {"arguments"}), "same layer"
    assert offences("sb3_env", {"envs"}), "lower, but outside its list"
    assert offences("nets", {"__init__"})
    assert not offences("envs", {"family", "rng", "envs"})
    assert not offences("losses", {"estimators", "distributions"})
