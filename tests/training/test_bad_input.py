"""Whatever a user gives, the answer is a result or one sentence: never a traceback, a hang, or memory without end.

Properties over configurations, damaged files, command lines, actions and tasks. The default suite tries a few of each,
always the same ones; the slow tests try thousands.
"""

from __future__ import annotations

import io
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy import TOY, Guess

import metarl
from metarl.agents.random import RandomAgent
from metarl.cli import compare, evaluate, train, watch
from metarl.core.errors import brief, short
from metarl.core.faults.memory import machine_memory
from metarl.training.config import parsing
from metarl.training.config.errors import ConfigError
from metarl.training.config.plain import is_plain
from metarl.training.config.safe_yaml import DEEPEST, MOST_VALUES, Misleading, Refused, load_yaml

LONGEST_SENTENCE = 300
SECONDS = 20
QUICK = settings(
    derandomize=True, max_examples=40, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
MANY = settings(QUICK, max_examples=2000)


@contextmanager
def in_time(seconds: int = SECONDS) -> Iterator[None]:
    """Fail what takes longer."""

    def too_long(*_: object) -> None:
        raise AssertionError(f"no answer after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def check_sentence(said: str) -> None:
    assert said and len(said) <= LONGEST_SENTENCE and said.isprintable(), ascii(said)


def answer(args: list[str]) -> str | None:
    """Return the sentence that refuses a command line; None if it is accepted."""
    with in_time(), redirect_stdout(io.StringIO()):
        try:
            parsing.parse(args)
        except ConfigError as mistake:
            check_sentence(f"metarl train: {mistake}")
            return str(mistake)
        except SystemExit as done:  # --help, --print_config
            assert done.code == 0
    return None


def mistake(main: Callable[[list[str]], int], args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return what a program says before it ends with 2."""
    with in_time():
        assert main(args) == 2
    said = capsys.readouterr().err.removesuffix("\n")
    check_sentence(said)
    return said


# Damaged files.

TEXTS = [
    parsing.parse(args).text()
    for args in (["rl2_gridnavi"], ["maml_navigation2d"], ["--agent=PPO", "--family=GridNavi"])
]
PIECES = [
    "[", "]", "{", "}", ":", "- ", "&a ", "*a", "!!python/object:os.system ", "!!set ", "!!int ", "!!float ",
    "!!bool ", "!!binary ", "null", "~", "010", "1:30", "1e999", ".nan", ".inf", "-1", "0", "\t", "\0", "\x1b[31m",
    "é", "%", "\ufeff", "@", "`", "'", '"', "|", "> ", "?", "<<: ", "9" * 5000, "x" * 3000, "\n", "  ", "#",
    "---\n", "...", "true", "0x", "1_0", "2026-01-31", "{a: b}", "[1, [2]]", "\u2028", "class_path: os.system",
    "10" * 12, "1e-400", "\ud800", "[[0, a]]",
]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw a configuration with a few places changed: cut, doubled, swapped, written over, a bit flipped."""
    text = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 4))):
        first, last = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
        lines = text.split("\n")
        line, other = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, len(lines) - 1))
        piece = draw(st.sampled_from(PIECES) | st.characters())
        how = draw(st.integers(0, 6))
        if how == 0:
            text = text[:first]
        elif how == 1:
            text = text[:first] + text[last:]
        elif how == 2:
            text = text[:first] + piece + text[first:]
        elif how == 3:
            text = text[:first] + piece + text[first + 1 :]
        else:
            lines[line] = [lines[line].partition(":")[0] + ": " + piece, lines[other], lines[line] * 2][how - 4]
            text = "\n".join(lines)
    data = bytearray(text.encode("utf-8", "surrogatepass"))
    if data and draw(st.booleans()):
        data[draw(st.integers(0, len(data) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(data)


def try_damaged(data: bytes, folder: Path) -> None:
    """A damaged file is refused in a sentence, or says what can be written down and read again with the same values."""
    path = folder / "damaged.yaml"
    path.write_bytes(data)
    if answer([str(path)]) is None:
        read = parsing.parse([str(path)])
        path.write_text(read.text(), encoding="utf-8")
        again = parsing.parse([str(path)]).values
        assert again | {"run_dir": None} == read.values | {"run_dir": None}
    assert {*folder.iterdir()} == {path}, "and nothing is written"


@QUICK
@given(damaged())
def test_a_damaged_configuration(tmp_path: Path, data: bytes):
    try_damaged(data, tmp_path)


@pytest.mark.slow
@MANY
@given(damaged())
def test_thousands_of_damaged_configurations(tmp_path: Path, data: bytes):
    try_damaged(data, tmp_path)


# Command lines.

KEYS = [
    "seed", "device", "family", "agent", "agent.lr", "agent.outer", "agent.outer.lr", "agent.hidden_sizes",
    "agent.gamma", "agent.hidden_size", "family.episodes_per_trial", "eval_splits", "run_dir", "init_from",
    "num_threads", "allow", "config", "resume", "seeds", "quiet", "help", "print_config", "profile", "train_tasks",
    "eval_splits+", "x" * 5000, "agent." + "y" * 4000, "family.x.y.z", "agent.lr.0", "a b", "", "é", "agent.",
    "agent.name", "env", "learning_rate", "agent.lr+", "\udc80", "=", "[", "\x1b[31m",
]  # fmt: skip
VALUES = [
    "[", "[" * 10_000, "{" * 10_000, "[[" * 3000 + "]]" * 3000, "&a [*a]", "!!python/object:os.system x",
    "!!set {a}", "null", "010", "1:30", "1e999", ".nan", ".inf", "-1", "9" * 5000, "x" * 30_000, "true", "0x",
    "{a: b}", "0.5", "-0", "{class_path: os.system}", "{name: RL2, lr: 1}", "[1, [2]]", "*", "\u2028", "10" * 12,
    "\udc80", "", "  ", "=", "../../x", "/dev/null", "~", "{name: 010}", "os:system", "x:GridNavi", "metarl/X-v0",
    "[[0, 1], [1, " + "2" * 400 + "]]", "\x1b[31m", "\n\n", "cuda:7", "ppo", "{name: ppo, lr: 010}",
    "{? {a: b} : c}", "RL2", "MAML", "rl2_gridnavi",
]  # fmt: skip
values = st.sampled_from(VALUES) | st.text(max_size=20).filter(lambda text: "\0" not in text)
options = st.tuples(st.sampled_from(KEYS), values)
words = st.lists(
    options.map(lambda option: [f"--{option[0]}={option[1]}"])
    | options.map(lambda option: [f"--{option[0]}", option[1]])
    | values.map(lambda value: [value]),
    min_size=1,
    max_size=4,
).map(lambda found: [word for some in found for word in some])


@QUICK
@given(words)
def test_a_command_line(words: list[str]):
    answer(words)


@pytest.mark.slow
@MANY
@given(words)
def test_thousands_of_command_lines(words: list[str]):
    answer(words)


@pytest.mark.parametrize("main", [evaluate.main, compare.main, watch.main])
@settings(QUICK, max_examples=10)
@given(option=st.sampled_from(["tasks", "repeats", "rounds", "seed", "split", "which", "x" * 999]), value=values)
def test_a_command_line_of_the_other_programs(main: Callable, option: str, value: str):
    """Without a run there is nothing to do, so all of them are refused."""
    shown = io.StringIO()
    with in_time(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", shown)
        try:
            code = main(["no such run", f"--{option}={value}"])
        except SystemExit as done:
            code = done.code
    assert code == 2
    check_sentence(shown.getvalue().removesuffix("\n"))


# Values that take long, or much memory, if they are taken as they are.


def bomb(levels: int = 9, width: int = 9) -> str:
    """A file of a few hundred bytes with a billion values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{at}: &a{at} [{', '.join([f'*a{at - 1}'] * width)}]" for at in range(1, levels)]
    return "\n".join(lines) + "\n"


def merge_bomb() -> str:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{at}: &a{at} {{<<: [{', '.join([f'*a{at - 1}'] * 9)}]}}" for at in range(1, 9)]
    return "\n".join(lines) + "\n"


BOMBS = {
    "aliases": bomb(),
    "aliases in one option": "agent: {lr: &a [[0, 1], [1, 1]]}\nseed: [" + "*a," * 5000 + "]\n",
    "merged keys": merge_bomb(),
    "an alias inside itself": "agent: &a {lr: *a}\n",
    "an alias inside its own list": "&a [*a]\n",
    "a mapping as its own key": "? &a {b: 1}\n: *a\nc: &d {*d : 1}\n",
    "nested brackets": "seed: " + "[" * 10_000 + "]" * 10_000 + "\n",
    "open brackets": "seed: " + "[" * 10_000 + "\n",
    "nested braces": "seed: " + "{a: " * 10_000 + "}" * 10_000 + "\n",
    "nested lists in a block": "seed:\n " + "- " * 10_000 + "1\n",
    "nested mappings in a block": "".join(f"{' ' * at}a:\n" for at in range(1000)),
    "unknown keys": "".join(f"k{at}: 1\n" for at in range(100_000)),
    "unknown keys of the agent": "agent:\n  name: RL2\n" + "".join(f"  k{at}: 1\n" for at in range(50_000)),
    "a long number": f"seed: {'9' * 5000}\n",
    "a long decimal number": f"agent: {{name: RL2, lr: {'9' * 5000}.0}}\n",
    "a long hexadecimal number": f"seed: 0x{'f' * 5000}\n",
    "a number of minutes": f"seed: 1{':30' * 3000}\n",
    "a long key": f"{'k' * 500_000}: 1\n",
    "a long text": f"device: {'d' * 500_000}\n",
    "a long split": f"eval_splits: [{'s' * 100_000}]\n",
    "a long family": f"family: {'f' * 500_000}\n",
    "a long list": f"seed: [{'1,' * 9000}]\n",
    "many spaces": "seed:" + " " * 900_000 + "1\n" + "x: 1\n",
    "many documents": "---\nseed: 1\n" * 10_000,
    "many tags": "seed: " + "!!str " * 10_000 + "1\n",
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_that_grows(name: str, tmp_path: Path):
    (tmp_path / "bomb.yaml").write_text(BOMBS[name])
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert answer([str(tmp_path / "bomb.yaml")]) is not None
    assert time.monotonic() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000, "kB"


@pytest.mark.parametrize(
    "value", ["[" * 10_000, "[" * 10_000 + "]" * 10_000, bomb(), "&a [*a]", "9" * 5000, "{a: " * 10_000]
)
def test_a_value_that_grows(value: str):
    for option in ("seed", "agent.lr", "eval_splits", "family", "agent", "run_dir", "agent.hidden_size", "train_tasks"):
        answer([f"--{option}={value}"])
    assert answer([f"--seed={value}"]) and answer([f"--agent.lr={value}"])


def test_the_memory_of_a_process_that_reads_a_bomb(tmp_path: Path):
    """The whole program, with little more memory than it needs."""
    (tmp_path / "bomb.yaml").write_text(bomb())
    command = [sys.executable, "-m", "metarl.train", "--config", str(tmp_path / "bomb.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, env=None)
    assert done.returncode == 2 and done.stdout == ""
    assert "more than 10,000 values" in done.stderr and done.stderr.count("\n") == 1


# Sizes.

HUGE = [10**12, 2**63 - 1, 10**20, 10**49]
SIZES: dict[str, list[str]] = {
    "toy": ["agent.meta_batch_size", "agent.hidden_size", "agent.embed_size", "agent.head_size", "eval_tasks",
            "eval_repeats", "final_eval_tasks", "num_threads", "family.numbers"],
    "maml_navigation2d": ["agent.meta_batch_size", "agent.fast_batch_size", "agent.test_fast_batch_size",
                          "agent.inner_steps", "agent.test_steps", "family.episodes_per_trial"],
}  # fmt: skip


@pytest.mark.parametrize("size", HUGE)
@pytest.mark.parametrize(("preset", "option"), [(preset, option) for preset in SIZES for option in SIZES[preset]])
def test_sizes_beyond_all_memory(
    preset: str, option: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    if option == "family.episodes_per_trial" and size < 2**63:
        pytest.skip("MAML plays single episodes, however many there are in a trial")
    monkeypatch.chdir(tmp_path)
    Path("toy").write_text(TOY)
    others = ["--eval_every=1", "--final_eval_tasks=5", "--total_iterations=1", "--eval_tasks=5", "--quiet"]
    said = mistake(train.main, [preset, *others, f"--{option}={size}"], capsys)
    assert "needs about" in said or "at most" in said
    assert not Path("runs").exists(), "and nothing is written"


@pytest.mark.parametrize("size", HUGE)
def test_layers_beyond_all_memory(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    for agent, layers in (("MAML", "[64, {}]"), ("PPO", "[{}, 64]")):
        given = [f"--agent={agent}", "--family=GridNavi", f"--agent.hidden_sizes={layers.format(size)}", "--quiet"]
        said = mistake(train.main, given, capsys)
        assert "The network needs about" in said or "at most" in said
    assert not Path("runs").exists()


@pytest.mark.parametrize("number", [10**6, 0, -1, 1025, -(10**30)])
def test_threads(number: int):
    assert f"num_threads must be at {'most' if number > 0 else 'least' if number > -9 else 'most'}" in str(
        answer([f"--num_threads={number}"])
    )


@pytest.mark.parametrize("option", ["tasks", "repeats", "episodes"])
@pytest.mark.parametrize("size", HUGE)
def test_evaluations_beyond_all_memory(option: str, size: int, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = ["pretrained:rl2_gridnavi", "--device=cpu", f"--{option}={size}"]
    said = mistake(evaluate.main, given, capsys)
    assert "needs about" in said or "at most" in said or "Did you mean" in said
    assert not Path("runs").exists(), "and nothing is written"


@pytest.mark.parametrize(
    ("family", "option"),
    [("BernoulliBandit", "num_arms"), ("Harlow", "num_features"), ("TMaze", "corridor_length"), ("TwoStep", "rounds"),
     ("TabularMDP", "num_states"), ("TabularMDP", "num_actions")],
)  # fmt: skip
@pytest.mark.parametrize("size", HUGE)
def test_families_beyond_all_memory(family: str, option: str, size: int):
    said = answer([f"--family={family}", "--agent=RL2", f"--family.{option}={size}"])
    assert said is not None and ("needs about" in said or "at most" in said or "as large as" in said)


def test_what_fits_is_not_refused():
    """The estimate is the least that is needed: presets and sizes that a machine can hold pass."""
    from metarl.training.run_checks import check_evaluations, check_iteration

    assert machine_memory() > 1e9
    for name in ("rl2_gridnavi", "maml_navigation2d", "ppo_gridnavi", "rl2_bernoulli_bandit"):
        config = parsing.parse([name]).config
        check_iteration(config)
        check_evaluations(config)
    config = parsing.parse(["rl2_gridnavi", "--agent.hidden_size=4096"]).config
    check_iteration(config)
    build_small = parsing.parse(["rl2_gridnavi", "--agent.hidden_size=1024"]).config
    build_small.agent.build(build_small.family, 1, torch.device("cpu"))


# Numbers that YAML reads as others.


@pytest.mark.parametrize(
    ("text", "words"),
    [("010", "write 8 or 10, or '010' for a string"), ("-017", "-15"), ("1:30", "write 90, or '1:30' for a string"),
     ("1:30:00", "5400"), ("00", "write 0"), ("1e999", "write .inf"), ("9" * 51, "51 digits")],
)  # fmt: skip
def test_a_number_that_means_another_one(text: str, words: str, tmp_path: Path):
    (tmp_path / "file.yaml").write_text(f"agent: RL2\nseed: {text}\n")
    said = answer([str(tmp_path / "file.yaml")])
    assert said is not None and said.startswith("In line 2 of the config file") and words in said
    said = answer([f"--seed={text}"])
    assert said is not None and "the value of --seed" in said and words in said
    with pytest.raises(Misleading):
        load_yaml(text)
    assert load_yaml(f"'{text}'") == text


def test_a_path_may_look_like_a_number():
    assert parsing.parse(["--run_dir=010"]).config.run_dir == "010"
    assert parsing.parse(["--run_dir=1:30"]).config.run_dir == "1:30"


@pytest.mark.parametrize("text", ["0", "-0", "10", "0x1F", "1_000", "0.5", "1e3", ".inf", "-.inf", "[1, 2]", "08x"])
def test_other_numbers_stay(text: str):
    assert load_yaml(text) == yaml.safe_load(text) or text == "1e3"


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_subnormal=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@QUICK
@given(plain)
def test_plain_data_is_read_as_it_was_written(data: Any):
    assert load_yaml(yaml.safe_dump(data)) == data


@settings(QUICK, max_examples=3)
@given(st.integers(1, DEEPEST - 2))
def test_what_is_within_the_limits_is_read(depth: int):
    assert load_yaml("[" * depth + "]" * depth) is not None
    assert len(load_yaml("[" + "1," * (MOST_VALUES - 2) + "]")) == MOST_VALUES - 2
    with pytest.raises(Refused, match="more than"):
        load_yaml("[" + "1," * (MOST_VALUES + 1) + "]")
    assert load_yaml("a: &x {b: 1}\nc: *x\nd: [*x, *x]\n") == {"a": {"b": 1}, "c": {"b": 1}, "d": [{"b": 1}] * 2}


# Actions, tasks, and arguments in Python.

THINGS: list[Any] = [
    None, True, 0, 1, -1, 10**30, 10**5000, 0.5, float("nan"), float("inf"), "a", "", "x" * 9999, [], [0], [[0]], {},
    {"a": 1}, (), np.zeros(0), np.zeros(2), np.zeros((2, 1)), np.array([np.nan, 0]), np.array("x"), np.array([None]),
    np.zeros(2, complex), torch.zeros(2), torch.tensor(float("nan")), object(), b"x", np.int64(1), [1] * 9999,
    np.array([1e300, 0]), [[1], [1, 2]], range(3), [None, None], torch.tensor([1.0, 2.0], requires_grad=True), float,
]  # fmt: skip
things = st.integers(0, len(THINGS) - 1).map(lambda at: THINGS[at])  # not sampled_from, which writes them down
things = things | things.map(lambda thing: [thing]) | plain


def tell(call: Callable[[], Any]) -> None:
    """A call has a result, or raises ValueError with one sentence."""
    with in_time():
        try:
            call()
        except (ValueError, gymnasium.error.ResetNeeded) as error:
            check_sentence(str(error))


@pytest.mark.parametrize("id", ["metarl/GridNavi-v0", "metarl/Navigation2D-v0", "metarl/CartPole-v0"])
@settings(QUICK, max_examples=60)
@given(thing=things, data=st.data())
def test_what_the_views_are_given(id: str, thing: Any, data: st.DataObject):
    env, envs = gymnasium.make(id).unwrapped, gymnasium.make_vec(id, num_envs=2).unwrapped
    env.reset(seed=1), envs.reset(seed=1)
    task = env.sample_tasks(1)[0]
    field = data.draw(st.sampled_from(task._fields))
    for call in (
        lambda: env.step(thing),
        lambda: envs.step(thing),
        lambda: env.reset(seed=thing),
        lambda: envs.reset(seed=thing),
        lambda: env.reset(options=thing),
        lambda: envs.reset(options=thing),
        lambda: env.sample_tasks(thing),
        lambda: (env.set_task(thing), env.reset()),
        lambda: (envs.set_task(thing), envs.reset()),
        lambda: (env.set_task(task._replace(**{field: thing})), env.reset()),
    ):
        tell(call)
    env.set_task(None)
    env.reset(seed=1)
    assert env.observation_space.contains(env.step(env.action_space.sample())[0]), "nothing is left behind"


@settings(QUICK, max_examples=60)
@given(
    thing=things, name=st.sampled_from(["tasks", "repeats", "episodes", "rounds", "seed", "greedy", "split", "family"])
)
def test_what_evaluate_is_given(thing: Any, name: str):
    given = {"family": Guess(2), "tasks": 2} | {name: thing}
    small = not isinstance(thing, int) or isinstance(thing, bool) or not 10**4 < thing < 2**63
    if small:  # a million tasks take their time
        tell(lambda: metarl.evaluate(RandomAgent(Guess(2)), **given))


@settings(QUICK, max_examples=60)
@given(
    st.dictionaries(st.sampled_from(["seed", "agent", "family", "device", "run_dir", "allow", "x"]), things, max_size=3)
)
def test_what_run_is_given(overrides: dict[str, Any]):
    from metarl.training.runs import _as_options

    def configured() -> None:
        words = list(_as_options(overrides))
        if not any(word.startswith("--allow") for word in words):
            parsing.parse(words)

    tell(configured)


# Sentences.


@QUICK
@given(things)
def test_a_shown_value_is_short(thing: Any):
    assert len(short(thing)) <= 64 + 2 * 60 and "\n" not in short(thing)
    assert len(brief("x" * 1000)) <= 63 and brief("short") == "short"


def test_types_that_hold_data():
    import enum
    from collections.abc import Sequence

    class Colour(enum.Enum):
        RED = 1

    for hint in (int, float | None, list[tuple[float, int]], dict[str, list[str]], Any, Path, Colour, Sequence[int]):
        assert is_plain(hint), hint
    for hint in (
        Callable,
        Callable[[int], int],
        type,
        type[int],
        Guess,
        list[Callable],
        int | Callable,
        dict[str, type],
    ):
        assert not is_plain(hint), hint
