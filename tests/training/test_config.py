"""A configuration is read from files, presets and the command line; what is wrong gets one helpful sentence."""

import json
import math
from pathlib import Path
from typing import Literal

import pytest
import torch
import yaml
from registered_families import PRESETS_ELSEWHERE
from toy import TOY, Guess

from metarl.agents import MAMLConfig, RL2Config
from metarl.agents.maml import PPOStep, ReptileStep, TRPOStep
from metarl.cli import contenders
from metarl.core import registry
from metarl.core.options import options_of, parts_of
from metarl.envs import FAMILIES
from metarl.training import checkpoint
from metarl.training.config import parsing as config
from metarl.training.config.errors import ConfigError, in_words, shown
from metarl.training.config.file import DEFAULT_PRESET, load_yaml, read_yaml
from metarl.training.config.line import read_line
from metarl.training.config.names import find_named, names_of
from metarl.training.config.run_config import FIELDS

FILES = [path for path in sorted(config.PRESETS.glob("*.yaml")) if path.stem not in PRESETS_ELSEWHERE]


@pytest.fixture
def toy(tmp_path: Path) -> str:
    path = tmp_path / "toy.yaml"
    path.write_text(TOY)
    return str(path)


def mistake(*args: str) -> str:
    """The sentence for a wrong command line."""
    with pytest.raises(ConfigError) as caught:
        config.parse(args)
    sentence = str(caught.value)
    assert "\n" not in sentence and "Traceback" not in sentence
    return sentence


def test_command_line_goes_over_the_file_in_any_order(toy: str):
    after = config.parse(["--config", toy, "--agent.lr", "1e-3", "--seed=7"]).config
    before = config.parse(["--seed", "7", "--agent.lr=1e-3", "--total_iterations=9", f"--config={toy}"])
    assert before.config.total_iterations == 9, "the file says 6"
    before = before.config
    assert (after.agent.lr, after.seed, after.agent.meta_batch_size) == (1e-3, 7, 16)
    assert after.agent == before.agent and isinstance(after.family, Guess) and after.family.numbers == 3


def test_schedules_from_file_and_command_line(toy: str):
    read = config.parse(["--config", toy, "--agent.lr", "[[0, 1e-3], [1, 1e-4]]"]).config.agent
    assert read.gamma == [(0.0, 0.9), (0.5, 0.98)]
    assert read.lr == [(0.0, 1e-3), (1.0, 1e-4)]


def test_the_written_configuration_gives_the_same_one(toy: str, tmp_path: Path):
    first = config.parse(["--config", toy, "--agent.lr", "[[0, 1e-3], [1, 1e-4]]", "--run_dir", "elsewhere"])
    written = tmp_path / "config.yaml"
    written.write_text(first.text())
    second = config.parse(["--config", str(written)])
    assert second.config.agent == first.config.agent
    assert second.values == first.values | {"run_dir": None}
    complete = yaml.safe_load(first.text())
    assert set(complete) == set(FIELDS)
    assert set(complete["agent"]) == {"name", *vars(first.config.agent)}


NAMES = ["metarl/BernoulliBandit-v0", "BernoulliBandit", "bernoulli_bandit", "metarl/bernoullibandit-v0"]
NAMES += [
    "metarl.envs.BernoulliBandit",
    "metarl.envs.bandits.bernoulli.BernoulliBandit",
    {"class_path": "BernoulliBandit"},
]


@pytest.mark.parametrize("name", NAMES, ids=str)
def test_a_family_by_id_short_name_and_former_path(toy: str, tmp_path: Path, name: str | dict):
    text = yaml.safe_load(TOY) | {"family": name}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(text))
    from_file = config.parse(["--config", str(tmp_path / "other.yaml")]).config
    from_line = config.parse(["--config", toy, "--family", json.dumps(name) if isinstance(name, dict) else name])
    assert type(from_file.family).__name__ == type(from_line.config.family).__name__ == "BernoulliBandit"
    assert from_line.values["family"]["name"] == "metarl/BernoulliBandit-v0", "what is written is the id"


@pytest.mark.parametrize("name", ["RL2", "rl2", "RL2Config", "metarl.agents.RL2Config", "metarl.agents.rl2.RL2Config"])
def test_an_agent_by_its_name_and_former_path(name: str):
    parsed = config.parse(["--config=maml_navigation2d", f"--agent={name}"])
    assert parsed.values["agent"]["name"] == "RL2" and isinstance(parsed.config.agent, RL2Config)


def test_a_file_from_before_there_were_names(toy: str, tmp_path: Path):
    (tmp_path / "old.yaml").write_text("""
family: {class_path: metarl/GridNavi-v0, init_args: {episodes_per_trial: 3}}
agent: {class_path: metarl.agents.rl2.RL2Config, init_args: {lr: 0.5}}
""")
    parsed = config.parse(["--config", str(tmp_path / "old.yaml")])
    assert parsed.values["family"] == {"name": "metarl/GridNavi-v0", "episodes_per_trial": 3}
    assert parsed.config.agent == RL2Config(lr=0.5)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_presets_hold_what_differs_from_the_defaults(path: Path, tmp_path: Path):
    parsed, written = config.parse(["--config", path.stem]), yaml.safe_load(path.read_text())
    assert parsed.name == path.stem
    (tmp_path / "bare.yaml").write_text(
        "".join(f"{key}: {parsed.values[key]['name']}\n" for key in ("family", "agent"))
    )
    bare = config.parse(["--config", str(tmp_path / "bare.yaml")]).values
    for key, value in written.items():
        if key not in ("family", "agent"):
            assert parsed.values[key] != bare[key], f"{key} is the default"
        elif isinstance(value, dict):
            assert len(value) > 1, f"{key} has no option: it is a name only"
            for option in value.keys() - {"name"}:
                assert parsed.values[key][option] != bare[key][option], f"{key}.{option} is the default"
    parsed.config.agent.build(parsed.config.family, 1, torch.device("cpu"))


GONE = {
    ("RL2", "reward_input_scale"): (1.0, 0.5),
    ("MAML", "policy"): ("mlp", "gru"),
    ("MAML", "action_unit"): (None, 2.0),
    ("PPO", "target_kl"): (None, 0.01),
}


@pytest.mark.parametrize(("agent", "option"), GONE)
def test_an_option_that_is_gone_may_stand_at_its_default(agent: str, option: str, tmp_path: Path):
    default, other = GONE[agent, option]
    path = tmp_path / "old.yaml"
    path.write_text(yaml.safe_dump({"family": "GridNavi", "agent": {"name": agent, option: default}}))
    assert option not in config.parse(["--config", str(path)]).values["agent"]
    path.write_text(yaml.safe_dump({"family": "GridNavi", "agent": {"name": agent, option: other}}))
    for args in (["--config", str(path)], [f"--agent={agent}", f"--agent.{option}={other}"]):
        said = mistake(*args)
        assert (
            f"The agent {agent} has no option {option!r} any more: it is {shown(default)}, got {shown(other)}." in said
        )
    if option == "policy":
        assert "a second time" in said and said.endswith("is RL2.")


TYPED_LISTS = {
    "--eval_splits test ood": "[test, ood]",
    "--eval_splits test": "[test]",
    "--eval_splits=test,ood": "[test,ood]",
    "--eval_splits [test, ood]": "[test, ood]",
    "--agent.hidden_sizes 64 32": "[64, 32]",
}


@pytest.mark.parametrize("typed", TYPED_LISTS)
def test_lists_as_people_type_them(typed: str):
    ((_, value),) = read_line(typed.split(" ")).options
    assert value == TYPED_LISTS[typed]
    parsed = config.parse(["--agent=MAML", *typed.split(" "), "--seed", "3"]).config
    expected = yaml.safe_load(value)
    assert expected in (parsed.eval_splits, list(parsed.agent.hidden_sizes)) and parsed.seed == 3


@pytest.mark.parametrize(
    "typed", ["rl2_gridnavi", "--seed 3 rl2_gridnavi", "rl2_gridnavi --agent.lr 1", "-h rl2_gridnavi"]
)
def test_a_word_of_its_own_is_a_preset(typed: str):
    assert read_line(typed.split()).files == ["rl2_gridnavi"]
    if "-h" not in typed:
        assert config.parse(typed.split()).name == "rl2_gridnavi"


def test_gpu_is_cuda_and_env_is_a_family():
    parsed = config.parse(["--device", "gpu", "--env", "bernoulli_bandit", "--env.num_arms", "3", "--agent", "maml"])
    assert parsed.config.device == parsed.values["device"] == "cuda"
    assert parsed.config.family.num_arms == 3 and parsed.values["agent"]["name"] == "MAML"  # type: ignore[attr-defined]


def test_a_name_that_may_mean_several_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    monkeypatch.setattr(registry, "_REGISTERED_IN", dict(registry._REGISTERED_IN))
    monkeypatch.setattr(registry, "_ON_REGISTER", [])
    for id in ("a/Twin-v0", "b/Twin-v0", "a/Tenth-v2", "a/Tenth-v10", "theirs/GridNavi-v0"):
        registry.register(id, Guess)
    assert "is ambiguous: give the full name, a/Twin-v0 or b/Twin-v0" in mistake("--family=Twin")
    assert find_named("family", "Tenth").name == "a/Tenth-v10", "the newest"
    assert find_named("family", "GridNavi").name == "metarl/GridNavi-v0", "ours"


def test_without_a_config_the_default_preset():
    assert config.parse([]).name == DEFAULT_PRESET


WRONG = {
    "--famly x": "Did you mean 'family'?",
    "--see 3": "Did you mean 'seed'?",
    "--agent.lrr 3": "Did you mean 'lr'?",
    "--family.numbrs=3": "Did you mean 'numbers'?",
    "--agent R2L": "Did you mean 'RL2'?",
    "--family GridNavy": "Did you mean 'GridNavi'?",
    "--family metarl/GridNavy-v0": "Did you mean 'metarl/GridNavi-v0'?",
    "--family toy.Gues": 'put metarl.register("toy/Gues-v0", Gues) into the module toy, and give --allow toy',
    "--agent mine.MineConfig": 'put metarl.register_agent("Mine", MineConfig) into the module mine, and give --allow',
    "--allow nowhere": "There is no module 'nowhere'",
    "--family nowhere:theirs/Mine-v0": "There is no module 'nowhere'",
    "--allow": "--allow needs the name of a package",
    "--train_split tran": "Did you mean 'train'?",
    "--eval_splits [test,odd]": "Did you mean 'ood'?",
    "--device gpus": "Did you mean 'cpu'?",
    "--device cuda:1": "CUDA_VISIBLE_DEVICES=1 and give --device cuda.",
    "--agent.learning_rate 1e-3": "Unknown option of agent RL2: 'learning_rate'. Did you mean 'lr'?",
    "--learning_rate 1e-3": "Did you mean 'agent.lr'?",
    "--lr 1e-3": "Did you mean 'agent.lr'?",
    "--hidden_size 3": "Did you mean 'agent.hidden_size'?",
    "--iterations 3": "Did you mean 'total_iterations'?",
    "--preset rl2_gridnavi": "Did you mean 'config'?",
    "rl2_gridnavy": "Did you mean 'rl2_gridnavi'?",
    "--seed x": "seed must be a whole number, got 'x'",
    "--seed": "--seed needs a value: a whole number",
    "--total_iterations -1": "total_iterations must be at least 0, got -1",
    "--agent.lr abc": "agent.lr must be a number or a list of pairs of numbers, got 'abc'",
    "--agent.hidden_size 0": "hidden_size must be at least 1",
    "--family.numbers 1": "numbers must be at least 2",
    "--resume nowhere --seed 3": "--seed cannot be changed with --resume",
    "--confg rl2_gridnavi": "Did you mean 'config'?",
    "--quite": "Did you mean 'quiet'?",
    "--resum runs/x": "Did you mean 'resume'?",
    "--resume nowhere": "no run to resume in 'nowhere'",
    f"--resume {'x' * 300}": "There is no run to resume in 'xxxx",  # longer than the name of a file may be
}


@pytest.mark.parametrize("args", WRONG)
def test_a_wrong_command_line_names_what_is_right(toy: str, args: str):
    config_args = [] if "--resume" in args else ["--config", toy]
    assert WRONG[args] in mistake(*config_args, *args.split())


EDITS = {
    ("total_iterations", "total_iteratons"): "Did you mean 'total_iterations'?",
    ("hidden_size", "hiden_size"): "Did you mean 'hidden_size'?",
    ("numbers", "nmbers"): "Did you mean 'numbers'?",
    ("name: toy", "nam: toy"): "The configuration names no family: set family.name.",
    ("name: RL2", "name: RL3"): "Did you mean 'RL2'?",
    ("toy/Guess-v0", "Gues"): "Did you mean 'Guess'?",
    ("toy/Guess-v0", "toy/Gues-v0"): "Did you mean 'toy/Guess-v0'?",
    ("[.5, .98]", "[.5, 98]"): "gamma must lie in [0, 1]",
    ("[.5, .98]", "[.5]"): "agent.gamma must be a number or a list of pairs of numbers, got [[0, 0.9], [0.5]]",
    ("agent:", "agent"): "not valid YAML in line",
    ("  name: toy/Guess-v0\n  numbers: 3", "  3"): "family must be a name, such as GridNavi, got 3",
    ("  name: toy/Guess-v0\n  numbers: 3", "  [a]"): "family must be a name, such as GridNavi, got [a]",
    ("name: toy/Guess-v0", "name: 3"): "family must be a name, such as GridNavi, got 3",
    ("numbers: 3", "init_args: 3"): "family.init_args must be options, each with its value, got 3",
    ("checkpoint_every: 2", "allow: toy"): "allow must be a list of strings, got 'toy'.",
    ("total_iterations: 6", "total_iterations: many"): "total_iterations must be a whole number, got 'many'",
    ("hidden_size: 8", "hidden_size: big"): "agent.hidden_size must be a whole number, got 'big'",
    ("checkpoint_every: 2", "eval_splits: test"): "eval_splits must be a list",
}


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit[1])
def test_a_wrong_file_names_what_is_right(tmp_path: Path, edit: tuple[str, str]):
    assert edit[0] in TOY
    (tmp_path / "wrong.yaml").write_text(TOY.replace(*edit))
    assert EDITS[edit] in mistake("--config", str(tmp_path / "wrong.yaml"))


def test_a_part_has_a_name_and_options_of_its_own(tmp_path: Path):
    typed = config.parse(["--agent=MAML", "--agent.outer=ppo", "--agent.outer.lr", "1e-2"])
    path = tmp_path / "mine.yaml"
    path.write_text("family: Navigation2D\nagent: {name: MAML, outer: {name: PPO, lr: 0.01}}\n")
    for parsed in (typed, config.parse(["--config", str(path)])):
        assert parsed.config.agent.outer == PPOStep(lr=0.01) and parsed.values["agent"]["outer"]["name"] == "ppo"
    other = config.parse(["--config", str(path), "--agent.outer=reptile"])
    assert other.config.agent.outer == ReptileStep(), "another kind starts from its own defaults"
    same = config.parse(["--config", str(path), "--agent.outer.clip_coef=0.3"])
    assert same.config.agent.outer == PPOStep(lr=0.01, clip_coef=0.3)
    path.write_text(typed.text())
    assert config.parse(["--config", str(path)]).text() == typed.text()
    for given, said in {
        "--agent.outer=pop": "Unknown agent.outer: 'pop'. Did you mean 'ppo'? Known: trpo, ppo, reptile, supervised.",
        "--agent.outer": "--agent.outer needs a value, one of trpo, ppo, reptile, supervised.",
        "--agent.outer.lr=1": "Unknown option of agent.outer trpo: 'lr'.",
        "--agent.outer.max_kl=x": "agent.outer.max_kl must be a number, got 'x'.",
        "--agent.outer.max_kl=0": "max_kl must be positive and finite, got 0.0.",
        "--agent.max_kl=1": "Unknown option of agent MAML: 'max_kl'. Did you mean 'outer.max_kl'?",
    }.items():
        assert said in mistake("--agent=MAML", given)


def test_options_that_moved_into_a_part_are_read_from_older_files(tmp_path: Path):
    path, flat = tmp_path / "old.yaml", {"lr": 0.5, "max_kl": 0.3, "inner_kl_coef": 0.2, "fast_lr": 0.7}
    expected = {"ppo": PPOStep(lr=0.5, inner_kl_coef=0.2), "trpo": TRPOStep(max_kl=0.3), "reptile": ReptileStep(lr=0.5)}
    for name, outer in expected.items():
        agent = {"class_path": "MAMLConfig", "init_args": flat | {"outer": name}}
        path.write_text(yaml.safe_dump({"family": {"class_path": "GridNavi"}, "agent": agent}))
        assert config.read(path).agent == MAMLConfig(outer=outer, fast_lr=0.7)


CLASSES = [("agent", name) for name in names_of("agent")] + [("family", family.__name__) for family in FAMILIES]


@pytest.mark.parametrize(("field", "name"), CLASSES)
def test_a_mistake_is_that_of_the_option_that_was_given(field: str, name: str, tmp_path: Path):
    """Whatever else the preset says, of this class or of another."""
    factory = find_named(field, name).factory
    options = {option: default for option, default in options_of(factory).items() if option not in parts_of(factory)}
    for option in options:
        part = {"name": name, option: {"a": 1}}
        (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(yaml.safe_load(TOY) | {field: part}))
        said = mistake("--config", str(tmp_path / "wrong.yaml"))
        assert said.startswith(f"{field}.{option} must be ") and said.endswith(", got {a: 1}.")
        typed = (f"--{field}={name}", f"--{field}.{option}")
        assert mistake(*typed).startswith(f"--{field}.{option} needs a value: ")
        if not isinstance(options[option], str):  # any text is one
            assert mistake(f"{typed[1]}=abc", typed[0]).startswith(f"{field}.{option} must be ")
    assert f"Unknown option of {field} {name}: 'no_such'." in mistake(f"--{field}={name}", f"--{field}.no_such=1")


TYPED = {
    "--agent MAML --agent.inner_steps abc": "agent.inner_steps must be a whole number, got 'abc'.",
    "--agent MAML --agent.memory gru": "Unknown option of agent MAML: 'memory'.",
    "--agent.name MAML --agent.outer ppo --agent.outer.lr [[0,1],[1]]": "got '[[0,1],[1]]'.",
    "--agent {name:\tMAML,inner_steps:\tabc}": "agent.inner_steps must be a whole number",
    "--agent {hidden_size:\tabc}": "agent.hidden_size must be a whole number, got 'abc'.",
    "--agent {a": "--agent is not valid YAML: '{a'.",
    "--agent.hidden_size.x 3": "Unknown option of agent RL2: 'hidden_size.x'. Did you mean 'hidden_size'?",
    "--agent.hidden_size=1e3": "agent.hidden_size must be a whole number, got '1e3'.",
    "--agent.norm_obs maybe": "agent.norm_obs must be true or false, got 'maybe'.",
    "--agent.target_kl x": "agent.target_kl must be a number or null, got 'x'.",
    "--agent MAML --agent.hidden_sizes x": "agent.hidden_sizes must be a list of whole numbers, got '[x]'.",
    "--agent=": "agent must be a name, such as RL2, got ''.",
    "--agent": "--agent needs a value, such as --agent RL2.",
    "--family.name": "--family.name needs a value, such as --family GridNavi.",
    "--seed.x 3": "Unknown option: 'seed.x'. Did you mean 'seed'?",
    "--seed null": "seed must be a whole number, got 'null'.",
    "--eval_splits+ tst": "Unknown split of Guess in eval_splits: 'tst'.",
    "stray": "Unknown config file or preset: 'stray'.",
    "--help=me": "--help takes no value, got 'me'.",
    "--resume": "--resume needs the folder",
}


@pytest.mark.parametrize("args", TYPED)
def test_more_wrong_command_lines(toy: str, args: str):
    first = [] if args.startswith("--resume") else ["--config", toy]
    assert TYPED[args] in mistake(*first, *(part.replace("\t", " ") for part in args.split(" ")))


WRITTEN = {
    "agent: null": "agent must be a name, such as RL2, got null.",
    "agent: {class_path: RL2Config, init_args: null}": "agent.init_args must be options",
    "agent: {name: RL2, gamma: [[0, .9], [1, a]]}": "agent.gamma must be a number or a list",
    "agent: {name: RL2, lr: null}": "agent.lr must be a number or a list of pairs of numbers,",
    "seed: null": "seed must be a whole number, got null.",
    "seed: [1]": "seed must be a whole number, got [1].",
    "run_dir: 3": "run_dir must be a string or null, got 3.",
    "agent.lr: 3": "Unknown option: 'agent.lr'. Did you mean 'agent'?",
    "3: 4": "Unknown option: '3'.",
    "config: x": "Unknown option: 'config'.",
    "seed: 1\nseed: 2": "the key 'seed' appears in line 1 and again in line 2: keep one of them.",
}


@pytest.mark.parametrize("text", WRITTEN)
def test_more_wrong_files(tmp_path: Path, text: str):
    rest = {key: value for key, value in yaml.safe_load(TOY).items() if not text.startswith(f"{key}:")}
    (tmp_path / "wrong.yaml").write_text(f"{text}\n{yaml.safe_dump(rest)}")
    assert WRITTEN[text] in mistake("--config", str(tmp_path / "wrong.yaml"))


TYPES = {
    int: "a whole number",
    float | None: "a number or null",
    float | list[tuple[float, float]]: "a number or a list of pairs of numbers",
    tuple[int, ...]: "a list of whole numbers",
    tuple[float, float, float]: "a list of 3 numbers",
    tuple[int, str]: "a pair of values",
    list[list[str]]: "a list of lists of strings",
    dict[str, int] | bool: "options, each with its value or true or false",
    Literal["a", "b"]: "a or b",
    list[Path]: "a list of values of Path",
}


def test_types_in_words():
    assert {kind: in_words(kind) for kind in TYPES} == TYPES
    assert [shown(value) for value in (None, True, "a", 1.5, [[0, "a"]], {"a": None})] == [
        "null", "true", "'a'", "1.5", "[[0, a]]", "{a: null}",
    ]  # fmt: skip


def test_equal_keys_are_an_error_in_every_yaml(tmp_path: Path):
    nested = TOY.replace("  hidden_size: 8\n", "  hidden_size: 8\n  lr: 0.1\n  hidden_size: 9\n")
    lines = {"top": "17 and again in line 18", "nested": "7 and again in line 9"}
    for name, text in {"top": TOY + "device: cpu\n", "nested": nested}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(text)
        (tmp_path / name / "evaluation").mkdir()
        (tmp_path / name / "evaluation" / "test.json").write_text("{}")
        for read in (
            lambda folder: config.read(folder / "config.yaml"),
            lambda folder: config.parse(["--resume", str(folder)]),
            lambda folder: contenders.lines([str(folder)], "cpu"),
            checkpoint.load,
        ):
            with pytest.raises(ConfigError, match=lines[name]):
                read(tmp_path / name)
    with pytest.raises(yaml.YAMLError, match="'a' appears twice in line 1"):
        load_yaml("{a: 1, b: {c: 1}, a: 1}")
    same = {"a": {"b": 1}, "c": {"b": 2}, "d": [{"b": 1}, {"b": 2}]}
    assert load_yaml(yaml.safe_dump(same)) == same
    assert load_yaml("a: &x {b: 1}\nc: {<<: *x, b: 2}\n") == {"a": {"b": 1}, "c": {"b": 2}}, "which YAML allows"


def test_numbers_in_files_are_numbers(tmp_path: Path):
    for text, value in {"1e-3": 1e-3, "-1.5E+2": -150.0, ".5": 0.5, "1.": 1.0, "10": 10, "-.inf": -math.inf}.items():
        assert load_yaml(text) == value and type(load_yaml(text)) is type(value)
    for text in ("1.2.3", "2026-01-31", "e3", "~/runs", "1e"):
        assert load_yaml(text) == text
    (tmp_path / "list.yaml").write_text("[a]")
    with pytest.raises(ConfigError, match="must consist of 'key: value' pairs"):
        read_yaml(tmp_path / "list.yaml")


def test_files_lie_over_each_other(toy: str, tmp_path: Path):
    (tmp_path / "more.yaml").write_text("seed: 9\nagent: {hidden_size: 7}\n")
    (tmp_path / "other.yaml").write_text("agent: MAML\n")
    both = config.parse(["--config", toy, "--config", str(tmp_path / "more.yaml"), "--seed=3"]).config
    assert (both.seed, both.agent.hidden_size, both.agent.update_epochs) == (3, 7, 2)
    other = config.parse(["--config", toy, "--config", str(tmp_path / "other.yaml"), "--agent.fast_lr=0.5"]).config
    assert vars(other.agent) == vars(MAMLConfig(fast_lr=0.5)) and isinstance(other.family, Guess)


def test_the_splits_of_a_family_do_not_go_with_another():
    """That has none of their names; nobody typed them."""
    preset = config.parse(["--config=rl2_gridnavi"]).config
    assert preset.train_split == "all"
    other = config.parse(["--config=rl2_gridnavi", "--family=Navigation2D"])
    assert other.config.train_split == other.values["train_split"] == "train"
    same = config.parse(["--config=rl2_gridnavi", "--family=DarkRoom"]).config
    assert same.train_split == "all", "it has one of this name"
    assert "'all'" in mistake("--config=rl2_gridnavi", "--family=Navigation2D", "--train_split=all")


def test_a_mistake_in_a_file_of_another_folder(toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "seed.yaml").write_text(TOY + "\nseed: one\n")
    monkeypatch.chdir(tmp_path)
    assert mistake("--config", "sub/seed.yaml") == "seed must be a whole number, got 'one'."


def test_the_configuration_is_written_with_a_line_for_each_schedule(toy: str):
    text = config.parse(["--config", toy, "--agent.lr", "[[0, 1e-3], [1, 0]]"]).text()
    assert "  lr: [[0.0, 0.001], [1.0, 0.0]]\n" in text


def test_a_file_that_does_not_exist_or_holds_nothing(tmp_path: Path):
    assert f"Did you mean '{DEFAULT_PRESET}'?" in mistake("--config", DEFAULT_PRESET[:-1])
    missing = mistake("--config", str(tmp_path / f"{DEFAULT_PRESET}s.yaml"))
    assert "There is no config file" in missing and f"Did you mean '{DEFAULT_PRESET}'?" in missing
    assert missing.endswith(f"There are {len(config.presets())}; see metarl train --help.")
    assert "a preset: " in mistake("--seed", "3", "--config")
    (tmp_path / "binary.yaml").write_bytes(b"\x7fELF\xd0\x00")
    assert "is not a YAML text file" in mistake("--config", str(tmp_path / "binary.yaml"))
    (tmp_path / "empty.yaml").write_text("seed: 3\n")
    assert "names no family" in mistake("--config", str(tmp_path / "empty.yaml"))


def test_help_explains_every_field(toy: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as done:
        config.parse(["--help", "--config", toy])
    shown = capsys.readouterr().out
    values = config.parse(["--config", toy]).values
    names = [f"--{name}" for name in FIELDS]
    names += [f"--{group}.{name}" for group in ("agent", "family") for name in values[group] if name != "name"]
    for name in names:
        about = shown.split(f"\n  {name}", 1)[1].split("\n  --", 1)[0].partition("(type:")[0]
        assert len(about.split()) > 3, f"{name} has no explanation"
    assert done.value.code == 0 and "--resume" in shown


def test_print_config_can_be_used_as_a_file(toy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        config.parse(["--config", toy, "--seed", "9", "--print_config"])
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    assert config.parse(["--config", str(tmp_path / "printed.yaml")]).config.seed == 9


@pytest.mark.parametrize(
    "option", ["--family=metarl/GridNavi-v0", "--family=gridnavi", "--family.name=GridNavi", "--env=GridNavi"]
)
def test_another_family_starts_from_its_own_defaults(option: str):
    """The default preset's two episodes suit its own family."""
    assert config.parse([option]).config.family.episodes_per_trial == 4
    assert config.parse([option, "--family.episodes_per_trial=3"]).config.family.episodes_per_trial == 3
    assert config.parse([]).config.family.episodes_per_trial == 2, "and what was chosen is forgotten"


def test_another_agent_starts_from_its_own_defaults():
    agent = config.parse(["--agent=MAML", "--agent.fast_lr=0.5"]).config.agent
    assert vars(agent) == vars(MAMLConfig(fast_lr=0.5))


def test_the_same_class_keeps_what_the_file_says():
    same = config.parse(["--config=rl2_gridnavi", "--family=metarl/GridNavi-v0", "--agent=RL2"]).config
    file = config.parse(["--config=rl2_gridnavi"]).config
    assert vars(same.agent) == vars(file.agent) and vars(same.family).keys() == vars(file.family).keys()
