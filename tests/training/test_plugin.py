"""Another project's family: a class outside the package, in a folder that has an `envs/` of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from toy import TOY

ROOT = Path(__file__).parents[2]

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
    (tmp_path / "theirs.yaml").write_text(TOY.replace("toy/Guess-v0", "theirs/Mine-v0"))
    return tmp_path


def python(project: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [sys.executable, *args]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, encoding="utf-8")


PROGRAMS = """
import sys
from metarl.cli.main import main
for line in sys.argv[1:]:
    print(main(line.split()), "is the exit code")
"""


def test_it_trains_and_its_agent_loads(project: Path):
    given = ["--config", "theirs.yaml", "--allow", "envs.mine", "--run_dir", "run", *SMALL]
    done = python(project, "-m", "metarl.train", *given)
    assert done.returncode == 0, done.stderr
    assert "MyFamily(numbers=3)" in done.stdout and "optimum" in done.stdout
    written = yaml.safe_load((project / "run" / "config.yaml").read_text())
    assert written["family"] == {"name": "theirs/Mine-v0", "numbers": 3} and written["allow"] == ["envs.mine"]
    again = python(project, "-c", "import metarl; print(metarl.load('run', allow=['envs.mine']).family)")
    assert again.stdout.strip() == "MyFamily(numbers=3)", again.stderr
    evaluated = "run --allow envs.mine --tasks 5 --split test --device cpu"
    for program in ("evaluate", "compare"):
        done = python(project, "-m", "metarl", program, *evaluated.split())
        assert done.returncode == 0, done.stderr


LOAD = """
import metarl, sys
for run in sys.argv[1:]:
    try:
        metarl.load(run)
    except ValueError as error:
        print(error, file=sys.stderr)
"""


def test_a_run_directory_is_data(project: Path):
    """Nothing that it names is imported before the user allows it."""
    (project / "evil.py").write_text("open('imported', 'w').close()\n")
    config = {"family": "theirs/Evil-v0", "agent": "RL2", "allow": ["evil"]}
    forms = [config, config | {"family": "evil:theirs/Evil-v0"}, config | {"family": "evil.Evil"}]
    forms += [config | {"family": "GridNavi", "agent": {"class_path": "evil.Evil", "init_args": {}}}]
    forms += [config | {"family": {"name": "GridNavi", "episodes_per_trial": {"class_path": "evil.Evil"}}}]
    runs = ["run", *(f"run_{number}" for number in range(1, len(forms)))]
    for run, form in zip(runs, forms, strict=True):
        (project / run).mkdir()
        (project / run / "config.yaml").write_text(yaml.safe_dump(form))
    done = python(project, "-c", LOAD, *runs)
    assert done.returncode == 0 and len(done.stderr.splitlines()) == len(runs), "a sentence for each"
    assert all(f"The run in {run!r} cannot be loaded" in done.stderr for run in runs), done.stderr
    assert not (project / "imported").exists()
    for command in (["metarl.train", "--resume", "run"], ["metarl", "evaluate", "run"]):
        done = python(project, "-m", *command)
        assert done.returncode == 2 and "give --allow evil, or allow=['evil'] in Python." in done.stderr
        assert not (project / "imported").exists()
    done = python(project, "-m", "metarl", "evaluate", "run", "--allow", "evil")
    assert done.returncode == 2 and (project / "imported").exists()


OLD = """\
family: {class_path: envs.mine.MyFamily, init_args: {numbers: 3}}
agent: {class_path: metarl.agents.rl2.RL2Config, init_args: {hidden_size: 8}}
"""


def test_a_run_from_before_there_were_names(project: Path):
    """The path of their class says what to do, and means something once the class is registered and allowed."""
    (project / "old.yaml").write_text(OLD)
    done = python(project, "-m", "metarl.train", "--config", "old.yaml")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert 'put metarl.register("envs/MyFamily-v0", MyFamily) into the module envs.mine' in done.stderr
    done = python(project, "-m", "metarl.train", "--config", "old.yaml", "--allow=envs.mine", "--print_config")
    assert "name: theirs/Mine-v0\n  numbers: 3" in done.stdout, done.stderr


def test_one_call_makes_it_an_id_for_configs_and_for_gymnasium(project: Path):
    program = """
from metarl.training.config import parsing as config
assert type(config.read("theirs.yaml", ["--allow", "envs.mine"]).family).__name__ == "MyFamily"
assert type(config.read("rl2_gridnavi", ["--family", "envs.mine:theirs/Mine-v0"]).family).__name__ == "MyFamily"
try:
    config.read("theirs.yaml", ["--family", "theirs/Mien-v0"])
except config.ConfigError as error:
    assert "Did you mean 'theirs/Mine-v0'?" in str(error), error

import gymnasium, metarl
assert "theirs/Mine-v0" in metarl.registered()
env = gymnasium.make("theirs/Mine-v0", numbers=5)
assert env.action_space.n == 5
env.reset(seed=1)
env.step(1)
print("done")
"""
    done = python(project, "-c", program)
    assert done.stdout == "done\n", done.stderr


FACTORIES = """\
import functools
import metarl
from toy import Guess


def many(numbers: int = 5, **kwargs) -> Guess:
    return Guess(numbers, **kwargs)


metarl.register("theirs/Many-v0", many)
metarl.register("theirs/Few-v0", functools.partial(Guess, numbers=3))
"""


def test_factories_of_theirs_train_and_their_agents_load(project: Path):
    """A function and a partial, by an id."""
    (project / "envs" / "made.py").write_text(FACTORIES)
    for name in ("Many", "Few"):
        given = [f"--family=envs.made:theirs/{name}-v0", "--run_dir", name, "--config", "theirs.yaml", *SMALL]
        done = python(project, "-m", "metarl.train", *given)
        assert done.returncode == 0, done.stderr
    load = "import metarl; print(*(metarl.load(run, allow=['envs.made']).family.numbers for run in ('Many', 'Few')))"
    again = python(project, "-c", load)
    assert again.stdout.strip() == "5 3", again.stderr
    names = [(project / name / "config.yaml").read_text().splitlines()[1].split(": ")[1] for name in ("Many", "Few")]
    assert names == ["theirs/Many-v0", "theirs/Few-v0"]


def test_a_factory_in_the_program_itself_is_refused(project: Path):
    (project / "own.py").write_text(
        FACTORIES + "import sys\nfrom metarl.train import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    for name in ("Many", "Few"):
        done = python(project, "own.py", f"--family=theirs/{name}-v0", "--config", "theirs.yaml", "--run_dir", "run")
        assert done.returncode == 2 and "could not be loaded" in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (project / "run").exists()


def test_the_list_of_families_knows_theirs(project: Path):
    listed = python(project, "-m", "metarl", "envs", "--import", "envs.mine")
    assert listed.returncode == 0, listed.stderr
    (line,) = [line for line in listed.stdout.splitlines() if line.startswith("theirs/Mine-v0")]
    assert "2 × 3" in line and "Theirs" in line
    assert "theirs/Mine-v0" not in python(project, "-m", "metarl", "envs").stdout, "nothing is imported unasked"
    # Each first name has to import the module; the second one finds it imported.
    for names in (["Mine --import envs.mine", "envs.mine:Mine"], ["envs.mine:theirs/Mine-v0"]):
        cards = python(project, "-c", PROGRAMS, *(f"envs {name}" for name in names))
        assert cards.stdout.count("theirs/Mine-v0\nTheirs.\n") == len(names), cards.stderr
    for name in ("envs.mine:MyFamily", "envs.mine.MyFamily"):
        card = python(project, "-m", "metarl", "envs", name)
        assert card.stdout.startswith("envs.mine:MyFamily\nTheirs.\n") and "MyFamily(numbers=4)" in card.stdout


def test_what_is_wrong_with_their_family_is_one_sentence(project: Path):
    (project / "envs" / "odd.py").write_text("""
from toy import Guess


class Odd(Guess):
    def __init__(self, size):
        super().__init__(size)


class Fails(Guess):
    def __init__(self):
        {}["lost"]
""")
    sentences = {
        "nowhere:Class": "There is no module 'nowhere'",
        "--import nowhere": "There is no module 'nowhere'",
        "envs.mine:MyFamly": "in envs.mine: 'MyFamly'. Did you mean 'MyFamily'? Known: Guess, MyFamily.",
        "pathlib:Path": "pathlib:Path must be a task family, a class that inherits from metarl.TaskFamily.",
        "envs.odd:Odd": "envs.odd:Odd has no card, since it cannot be made without size.",
        "envs.odd:Fails": "envs.odd:Fails cannot be made: KeyError: 'lost'.",
    }
    done = python(project, "-c", PROGRAMS, *(f"envs {given}" for given in sentences))
    assert done.stdout == "2 is the exit code\n" * len(sentences)
    assert len(said := done.stderr.splitlines()) == len(sentences), done.stderr
    assert all(sentence in line for sentence, line in zip(sentences.values(), said, strict=True)), done.stderr


def test_a_family_of_theirs_that_cannot_be_made_does_not_hide_the_others(project: Path):
    (project / "more.py").write_text("""
import metarl
from toy import Guess


class Fails(Guess):
    def __init__(self):
        {}["lost"]


metarl.register("more/Fails-v0", Fails)
""")
    done = python(project, "-m", "metarl", "envs", "--import", "more")
    assert done.returncode == 0 and "metarl/GridNavi-v0" in done.stdout
    assert "more/Fails-v0 left out: more/Fails-v0 cannot be made: KeyError" in done.stderr


def test_a_module_of_theirs_that_fails_is_named_in_a_sentence(project: Path):
    (project / "envs" / "mine.py").write_text("import nothing_of_this_name\n")
    done = python(project, "-m", "metarl.train", "--config", "theirs.yaml", "--allow", "envs.mine")
    assert done.returncode == 2 and "needs 'nothing_of_this_name'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    (project / "envs" / "mine.py").write_text("1 / 0\n")
    read = "from metarl.training.config import parsing; parsing.read('theirs.yaml', ['--allow=envs.mine'])"
    with_error = python(project, "-c", read)
    assert "'envs.mine' cannot be imported: ZeroDivisionError" in with_error.stderr
