"""The architecture: floors that import downwards only, folders of at most twelve modules, no circle.

Every import counts, wherever in a file it stands: inside functions and under TYPE_CHECKING, too. A new module needs no
place here; a new folder does, and that is a design decision, so the failing test is the reminder to take it.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "metarl"

FLOORS = (
    "core", "fast", "learning", "interop", "envs", "agents", "testing", "evaluation", "report", "training",
    "studies", "cli",
)  # fmt: skip
"""Low to high. A module imports from lower floors and from its own."""
DOORS = ("__init__", "__main__", "train")
"""Modules beside the floors: they may import anything, and no floor imports them."""
CORE = {
    "rng": 0, "tree": 0, "errors": 0, "host.calls": 0, "beliefs.step": 0, "options": 1, "units": 1, "distributions": 1,
    "faults.regular": 1, "beliefs.belief": 1, "family": 2, "faults.results": 3, "beliefs.enumeration": 3, "checks": 4,
    "registry": 3, "batch_env": 5, "faults.memory": 5, "faults.diagnosis": 6, "rollout": 7, "agent": 9,
    "faults.verbs": 8, "faults.given": 4, "beliefs.places": 1, "tasks.sketch": 0, "tasks.splits": 1,
}  # fmt: skip
"""The floors inside the core: a module imports from lower ones."""
ENVS_MAY = {"core", "envs"}
"""A family is physics: it needs the core, and nothing that learns or watches."""
MOST = 12


def modules() -> list[Path]:
    """Every module of the package, agents and envs among them, by the path inside `metarl`."""
    found = list(PACKAGE.rglob("*.py"))
    for linked in ("agents", "envs"):  # links are not followed by every version of Python
        found += [
            PACKAGE / linked / path.relative_to(PACKAGE.parent / linked)
            for path in (PACKAGE.parent / linked).rglob("*.py")
        ]
    return sorted({path.relative_to(PACKAGE) for path in found if "pretrained" not in path.parts})


MODULES = modules()
NAMES = {dotted: path for path in MODULES for dotted in [".".join(["metarl", *path.with_suffix("").parts])]}


def imported(path: Path) -> set[str]:
    """The modules of metarl that a module imports, by their dotted names; packages count as their `__init__`."""
    names = set()
    for node in ast.walk(ast.parse((PACKAGE / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {resolved(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            for alias in node.names:
                names.add(resolved(f"{node.module}.{alias.name}") or resolved(node.module or ""))
    return names - {""}


def resolved(name: str) -> str:
    """The module that an imported name is, or ""."""
    if name in NAMES:
        return name
    return f"{name}.__init__" if f"{name}.__init__" in NAMES else ""


def floor(dotted: str) -> str:
    return dotted.split(".")[1]


def offences(importer: str, names: set[str]) -> list[str]:
    """What is wrong with a module that imports these."""
    mine, found = floor(importer), []
    for name in sorted(names - {importer}):
        other = floor(name)
        if mine in DOORS:
            continue
        if other in DOORS:
            found.append(f"{importer} imports metarl itself: import from the module that defines it")
        elif FLOORS.index(other) > FLOORS.index(mine):
            found.append(f"{importer} imports {name}: an arrow upward")
        elif mine == "envs" and other not in ENVS_MAY:
            found.append(f"{importer} imports {name}: a family needs only the core")
        elif mine == other == "core" and "__init__" not in name:
            low, high = (CORE[each.removeprefix("metarl.core.")] for each in (name, importer))
            if low >= high:
                found.append(f"{importer} imports {name}: an arrow upward inside the core")
    return found


def test_every_module_stands_on_a_floor():
    assert {floor(name) for name in NAMES} == {*FLOORS, *DOORS}
    inside = {name.removeprefix("metarl.core.") for name in NAMES if floor(name) == "core"}
    assert {name for name in inside if not name.endswith("__init__")} == {*CORE}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_imports_point_down(name: str):
    found = offences(name, imported(NAMES[name]))
    assert not found, "\n".join(found)


def test_no_folder_holds_more_than_twelve_modules():
    folders: dict[Path, int] = {}
    for path in MODULES:
        folders[path.parent] = folders.get(path.parent, 0) + (path.name not in ("__init__.py", "__main__.py"))
    assert {str(folder): count for folder, count in folders.items() if count > MOST} == {}


def test_there_is_no_circle():
    """Not even one of imports inside functions, which Python would allow."""
    arrows = {name: imported(path) - {name} for name, path in NAMES.items() if floor(name) not in DOORS}
    arrows = {name: {other for other in others if "__init__" not in other} for name, others in arrows.items()}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " → ".join([*way[way.index(name) :], name])
        if name not in done:
            for other in sorted(arrows.get(name, ())):
                visit(other, (*way, name))
            done.add(name)

    for name in sorted(arrows):
        if "__init__" not in name:
            visit(name, ())


def test_the_rules_bite():
    assert offences("metarl.core.rng", {"metarl.core.family"})
    assert offences("metarl.core.batch_env", {"metarl.fast.gru"})
    assert offences("metarl.envs.mdp", {"metarl.interop.stream"})
    assert offences("metarl.agents.rl2.agent", {"metarl.training.loop"})
    assert offences("metarl.learning.nets", {"metarl.__init__"})
    assert not offences("metarl.agents.rl2.agent", {"metarl.agents.rl2.config", "metarl.learning.nets"})
    assert not offences("metarl.__init__", {"metarl.cli.main"})
