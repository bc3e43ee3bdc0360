"""What is installed is what stands in the folders, and what is imported is declared."""

import ast
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "metarl"
LINKS = ("agents", "configs", "envs")
UNPACKED = (ROOT / "PKG-INFO").exists()  # from a source distribution, which holds the package as it is installed

# Import names that are not the distribution's name.
DISTRIBUTION = {"PIL": "pillow", "mpl_toolkits": "matplotlib", "sklearn": "scikit-learn", "yaml": "pyyaml"}
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


def build(root: Path, target: str, folder: Path) -> Path:
    """The distribution of `target` (sdist, wheel, wheel:editable) that the project in `root` builds, in `folder`."""
    pytest.importorskip("hatchling", reason="pip install -e .[test]")
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (made,) = folder.iterdir()
    return made


def in_wheel(path: Path) -> list[str]:
    """The files of the package in a wheel."""
    with zipfile.ZipFile(path) as wheel:
        return [name for name in wheel.namelist() if not name.startswith("metarl-")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.mark.skipif(UNPACKED, reason="a source distribution holds no links")
@pytest.mark.parametrize("name", LINKS)
def test_folders_at_the_top_are_linked_into_the_package(name: str):
    link = PACKAGE / name
    assert link.is_symlink(), f"metarl/{name} must be a link (on Windows: git config core.symlinks true)"
    assert link.readlink() == Path("..", name), "relative, or it breaks in every other checkout"
    assert link.resolve() == (ROOT / name).resolve()


def test_a_wheel_holds_the_package_and_nothing_else(wheel: Path):
    """The modules, those of the linked folders too, the presets and the trained agents, each once."""
    found = Counter(in_wheel(wheel))
    present = [path for folder in ("", *LINKS) for path in (PACKAGE / folder).rglob("*") if path.is_file()]
    expected = {path.relative_to(ROOT).as_posix() for path in present if "__pycache__" not in path.parts}
    assert found == Counter(expected)
    assert {Path(name).suffix for name in found} <= {".py", ".typed", ".yaml", ".json", ".csv", ".safetensors"}
    linked = {"metarl/envs/grids/grid_navi.py", "metarl/agents/rl2/agent.py", "metarl/configs/rl2_gridnavi.yaml"}
    assert linked <= found.keys()
    assert wheel.stat().st_size < 15e6, "it stays small"


def test_a_source_distribution_makes_the_same_wheel_and_holds_the_tests(wheel: Path, tmp_path: Path):
    sdist = build(ROOT, "sdist", tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (root,) = (tmp_path / "unpacked").iterdir()
    assert sorted(in_wheel(build(root, "wheel", tmp_path / "wheel"))) == sorted(in_wheel(wheel))
    for name in ("tests/test_packaging.py", "docs/metrics.md", "benchmarks/presets.py", "constraints.txt", "README.md"):
        assert (root / name).is_file()
    assert not [name for name in LINKS if (root / name).exists()], "the package stands there once"


def test_an_editable_install_is_found_from_the_folder_that_holds_the_clone(tmp_path: Path):
    """A folder called metarl in the working directory does not hide it."""
    with zipfile.ZipFile(build(ROOT, "wheel:editable", tmp_path / "wheel")) as editable:
        editable.extractall(tmp_path / "site")
    (tmp_path / "metarl").symlink_to(ROOT, target_is_directory=True)
    code = f"import site; site.addsitedir({str(tmp_path / 'site')!r}); from importlib.util import find_spec as find"
    command = [sys.executable, "-S", "-c", f"{code}; print(find('metarl').origin)"]  # no site folder but this one
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={})
    assert done.stdout.strip() == str(PACKAGE / "__init__.py"), done.stderr


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


SOURCES = sorted([*PACKAGE.glob("*.py"), *(path for name in LINKS for path in (PACKAGE / name).rglob("*.py"))])


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_are_declared(path: Path, pyproject: dict):
    always = {canonicalize_name(need.name) for need in requirements(pyproject)}
    extras = [extra for extra in pyproject["project"]["optional-dependencies"] if extra not in NOT_RUNTIME]
    declared = {canonicalize_name(need.name) for need in requirements(pyproject, *extras)}
    for name, needed in imported(path).items():
        distribution = canonicalize_name(DISTRIBUTION.get(name, name))
        assert distribution in declared, f"{name} is imported and not declared in pyproject.toml"
        # A family's file is imported when the family is made, so its simulator may stand at the top of the file.
        if needed and not path.is_relative_to(PACKAGE / "envs"):
            assert distribution in always, f"{name} comes with an extra: import it inside the function that needs it"
