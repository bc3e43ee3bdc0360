"""Another project's family: a class outside the package, in a folder that has an `envs/` of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy import TOY

ROOT = Path(__file__).parents[1]

FAMILY = """\
from toy import Guess
import metarl


class MyFamily(Guess):
    '''Theirs.'''

    def __init__(self, numbers: int = 4) -> None:
        super().__init__(numbers)
        self.numbers = numbers


metarl.register("theirs/Mine-v0", MyFamily)
"""

SMALL = ["--total_iterations", "2", "--final_eval_tasks", "10", "--agent.num_minibatches", "2"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with an `envs` package, a config file, and nothing installed."""
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "__init__.py").write_text("")
    (tmp_path / "envs" / "mine.py").write_text(FAMILY)
    (tmp_path / "theirs.yaml").write_text(TOY.replace("toy.Guess", "envs.mine.MyFamily"))
    (tmp_path / "by_id.yaml").write_text(TOY.replace("toy.Guess", "envs.mine:theirs/Mine-v0"))
    return tmp_path


def python(project: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [sys.executable, *args]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, encoding="utf-8")


@pytest.mark.parametrize("file", ["theirs.yaml", "by_id.yaml"])
def test_it_trains_and_its_agent_loads(project: Path, file: str):
    done = python(project, "-m", "metarl.train", "--config", file, "--run_dir", "run", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "MyFamily(numbers=3)" in done.stdout and "optimum" in done.stdout
    assert "envs.mine.MyFamily" in (project / "run" / "config.yaml").read_text()
    if file == "theirs.yaml":
        again = python(project, "-m", "metarl.evaluate", "run", "--tasks", "10")
        assert again.returncode == 0, again.stderr
        elsewhere = python(project / "envs", "-m", "metarl.evaluate", "../run")
        assert elsewhere.returncode == 2 and "no module 'envs.mine'" in elsewhere.stderr.lower()


def test_it_becomes_a_gymnasium_id_by_one_call(project: Path):
    program = """
import envs.mine, gymnasium, metarl
assert "theirs/Mine-v0" in metarl.registered()
env = gymnasium.make("theirs/Mine-v0", numbers=5)
assert env.action_space.n == 5
env.reset(seed=1)
env.step(1)
"""
    done = python(project, "-c", program)
    assert done.returncode == 0, done.stderr


def test_a_wrong_class_of_theirs_names_the_nearest(project: Path):
    done = python(project, "-m", "metarl.train", "--config", "theirs.yaml", "--family", "envs.mine.MyFamly")
    assert done.returncode == 2 and "Did you mean 'MyFamily'?" in done.stderr
    (project / "envs" / "mine.py").write_text("import nothing_of_this_name\n")
    done = python(project, "-m", "metarl.train", "--config", "theirs.yaml")
    assert done.returncode == 2 and "needs 'nothing_of_this_name'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
