"""The public names, and that importing them is quick."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import metarl

SLOW = ("torch", "matplotlib", "tensorboard", "stable_baselines3", "scipy", "jsonargparse", "rich")


def test_public_names():
    names = ("registered", "make", "register", "load", "evaluate", "run", "Run", "register_baseline", "Player")
    for name in (*names, "AdaptationCurve", "TaskFamily", "__version__"):
        assert name in metarl.__all__
        assert getattr(metarl, name)
    assert callable(metarl.evaluate)
    assert "metarl/GridNavi-v0" in metarl.registered()


def test_import_brings_no_plotting_logging_or_parsing():
    program = f"import sys, metarl; print(*[name for name in {SLOW} if name in sys.modules])"
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


PLAYS = """
import sys, gymnasium, {module}
{more}
assert "torch" not in sys.modules, "ids are texts until an environment is made"
env = gymnasium.make("{id}", episodes_per_trial=2)
env.reset(seed=0)
print(env.step(env.action_space.sample())[1])
assert "metarl.fast" in sys.modules, "the environment is stepped by the fast twin"
"""


@pytest.mark.parametrize(
    ("module", "more", "id"),
    [
        ("metarl", "", "metarl/GridNavi-v0"),
        ("metarl", "gymnasium.register_envs(metarl)", "metarl/GridNavi-v0"),
        ("sys", "", "metarl:metarl/GridNavi-v0"),
    ],
)
def test_gymnasium_finds_the_families_in_a_fresh_process(module: str, more: str, id: str):
    program = PLAYS.format(module=module, more=more, id=id)
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0 and float(done.stdout) == pytest.approx(-0.1), done.stderr


def test_rollouts_are_stepped_by_the_fast_twin():
    program = "import sys, metarl; metarl.run_trial; assert 'metarl.fast' in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[1], check=True)


REGISTERS = """
from metarl.core.registry import register
register("theirs/Mine-v0", "metarl.envs.grids.grid_navi:GridNavi")
import gymnasium
gymnasium.make("theirs/Mine-v0").reset(seed=0)
"""


def test_a_family_registered_without_importing_more_is_a_gymnasium_id_too():
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", REGISTERS], cwd=root, check=True)


def test_the_names_for_type_checkers_are_the_lazy_ones():
    """Both packages say each name twice: once for type checkers, and once for Python."""
    for module, lazy in ((metarl, metarl._LAZY), (metarl.envs, metarl.envs.PLAIN)):
        tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
        (block,) = [
            node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        ]
        found = {
            alias.name: node.module
            for node in block.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
            if alias.name in module.__all__
        }
        assert found == {name: at if at.startswith("metarl.") else f"metarl.envs.{at}" for name, at in lazy.items()}
        for name in found:
            assert getattr(module, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'metarl' has no attribute 'evalute'"):
        metarl.evalute  # noqa: B018


def test_every_gymnasium_id_is_registered_by_the_import():
    import gymnasium

    assert set(metarl.registered()) <= set(gymnasium.registry)


def test_a_checkout_without_links_says_what_to_do(tmp_path: Path):
    """As git leaves it on Windows by default: a file that holds the target of the link."""
    package = tmp_path / "metarl"
    package.mkdir()
    (package / "__init__.py").write_text(Path(metarl.__file__).read_text(encoding="utf-8"), encoding="utf-8")
    (package / "envs").write_text("../envs", encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", "import metarl"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "ImportError: This checkout of metarl has files in place of" in done.stderr
