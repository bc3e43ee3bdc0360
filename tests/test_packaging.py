"""What is installed is what stands in the folders, and what is imported is declared."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from setuptools import find_packages

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "metarl"
LINKS = ("agents", "configs", "envs")

# Import names that are not the distribution's name.
DISTRIBUTION = {"PIL": "pillow", "mpl_toolkits": "matplotlib", "warp": "mujoco-warp", "yaml": "pyyaml"}
NOT_RUNTIME = ("docs", "test")  # extras of the developers


@pytest.fixture(scope="module")
def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    """Distribution → version, from constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def requirements(pyproject: dict, *extras: str) -> list[Requirement]:
    """What the project needs with these extras; an extra may name others of the project's own."""
    project = pyproject["project"]
    lists = [project["dependencies"]] + [project["optional-dependencies"][extra] for extra in extras]
    needs = [Requirement(line) for lines in lists for line in lines]
    own = {extra for need in needs if need.name == project["name"] for extra in need.extras}
    needs = [need for need in needs if need.name != project["name"]]
    return needs + ([] if own <= set(extras) else requirements(pyproject, *own)[len(project["dependencies"]) :])


def imported(path: Path) -> dict[str, bool]:
    """Top-level names that a file imports → whether importing the file needs them (not so inside a function)."""
    names: dict[str, bool] = {}

    def visit(node: ast.AST, needed: bool) -> None:
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        else:
            found = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        for name in found:
            top = name.split(".")[0]
            names[top] = names.get(top, False) or needed
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.Try)
        type_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.iter_child_nodes(node):
            visit(child, needed and not inside and not type_only)

    visit(ast.parse(path.read_text(encoding="utf-8")), True)
    return {name: needed for name, needed in names.items() if name not in sys.stdlib_module_names | {"metarl"}}


@pytest.mark.parametrize("name", LINKS)
def test_folders_at_the_top_are_linked_into_the_package(name: str):
    link = PACKAGE / name
    assert link.is_symlink(), f"metarl/{name} must be a link (on Windows: git config core.symlinks true)"
    assert link.readlink() == Path("..", name), "relative, or it breaks in every other checkout"
    assert link.resolve() == (ROOT / name).resolve()


def test_package_list_has_the_linked_packages(pyproject: dict):
    find = pyproject["tool"]["setuptools"]["packages"]["find"]
    packages = set(find_packages(str(ROOT), **find))
    assert packages == {"metarl", "metarl.agents", "metarl.envs"}


def test_data_files_are_packaged(pyproject: dict):
    patterns = pyproject["tool"]["setuptools"]["package-data"]["metarl"]
    packaged = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    present = {PACKAGE / "configs" / path.name for path in (ROOT / "configs").iterdir() if path.name[0] not in "._"}
    present |= {path for path in (PACKAGE / "pretrained").rglob("*") if path.is_file()}
    left_out = sorted(str(path.relative_to(PACKAGE)) for path in present - packaged)
    assert not left_out, f"not matched by [tool.setuptools.package-data]: {left_out}"
    assert sum(path.stat().st_size for path in present) < 10e6, "the wheel stays small"


def test_the_pinned_set_is_portable():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    bad = [line for line in lines if not re.fullmatch(r"#.*|[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", line)]
    assert not bad, f"not a plain name==version: {bad}"


def test_the_pinned_set_lies_in_the_ranges(pyproject: dict, pins: dict[str, str]):
    for need in requirements(pyproject, "test"):
        assert canonicalize_name(need.name) in pins, f"{need.name} is not pinned"
    for need in requirements(pyproject, *pyproject["project"]["optional-dependencies"]):
        version = pins.get(canonicalize_name(need.name))
        assert version is None or need.specifier.contains(version), f"{need} but constraints.txt has {version}"


SOURCES = sorted([*PACKAGE.glob("*.py"), *(ROOT / "envs").rglob("*.py"), *(ROOT / "agents").rglob("*.py")])


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_are_declared(path: Path, pyproject: dict):
    always = {canonicalize_name(need.name) for need in requirements(pyproject)}
    extras = [extra for extra in pyproject["project"]["optional-dependencies"] if extra not in NOT_RUNTIME]
    declared = {canonicalize_name(need.name) for need in requirements(pyproject, *extras)}
    for name, needed in imported(path).items():
        distribution = canonicalize_name(DISTRIBUTION.get(name, name))
        assert distribution in declared, f"{name} is imported and not declared in pyproject.toml"
        # A family's file is imported when the family is made, so its simulator may stand at the top of the file.
        if needed and not path.is_relative_to(ROOT / "envs"):
            assert distribution in always, f"{name} comes with an extra: import it inside the function that needs it"
