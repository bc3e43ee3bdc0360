"""A run's configuration: dataclasses ↔ YAML ↔ command line, by jsonargparse.

``parse(args)`` reads ``--config FILE_OR_PRESET`` and overrides such as ``--agent.lr 1e-3``; without ``--config`` it
reads the default preset. `family` and `agent` are classes: ``class_path`` and ``init_args``, where the class path may
be a full one, a short class name, or the id of a registered family (``metarl/GridNavi-v0``, or
``module:theirs/Mine-v0`` for a module to import first). Everything that is wrong raises ConfigError, whose message is
one sentence for the user.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import SUPPRESS, ArgumentParser, Namespace, get_loader, set_loader, set_parsing_settings

import metarl.agents
import metarl.envs  # noqa: F401  (registers the families)
from metarl.agent import AgentConfig
from metarl.config_errors import ConfigError, explain, family_id, split_args
from metarl.console import QUIET
from metarl.family import TaskFamily, family_class, unknown

DEFAULT_PRESET = "rl2_navigation2d"
PRESETS = Path(__file__).parent / "configs"
RESUMABLE = (
    "total_iterations",
    "eval_every",
    "eval_tasks",
    "eval_repeats",
    "eval_splits",
    "final_eval_tasks",
    "checkpoint_every",
    "device",
    "num_threads",
    "profile",
)
"""What may be given anew with ``--resume``: nothing in it changes what was learned so far."""


@dataclass
class TrainConfig:
    """A training run."""

    family: TaskFamily
    """The task family: a class name or path with its own options below it, or a registered id."""
    agent: AgentConfig
    """The agent: the class of its configuration with its own options below it."""
    seed: int = 1
    """Seed of everything that is random: initial parameters, tasks, episodes and actions."""
    device: str = "auto"
    """Where tensors live: cpu, cuda, or auto (cuda if there is one)."""
    total_iterations: int = 1000
    """Meta-training iterations: each samples tasks, plays a trial on each and updates the agent once. 0: none, the
    agent is evaluated as it begins."""
    train_split: str = "train"
    """The split of the family's tasks that training samples from."""
    train_tasks: int | None = None
    """Train on a fixed list of so many tasks, the same for every seed; null: on all that the family has."""
    eval_every: int = 50
    """Iterations between evaluations; 0: none but the one at the end."""
    eval_tasks: int = 200
    """Tasks of each split in the evaluations during training."""
    eval_repeats: int | None = 1
    """Trials on each of these tasks; null: as many as make an episode's steps times repeats at least 20."""
    eval_splits: list[str] = field(default_factory=lambda: ["valid"])
    """Splits that are evaluated during training. With valid among them, the agent that scored best there is kept as
    best.safetensors. The table at the end has all splits of the family."""
    final_eval_tasks: int = 1000
    """Tasks of each split in the evaluation at the end, with repeats as null above; 0: no evaluation at the end."""
    checkpoint_every: int = 50
    """Iterations between checkpoints; one is written at the end and on Ctrl-C in any case."""
    run_dir: str | None = None
    """Folder of the run's files; null: runs/<preset>_<seed>_<time>."""
    num_threads: int | None = None
    """Threads of torch on the CPU; null: torch's own choice."""
    profile: bool = False
    """Show where the time of an iteration (the second) goes, and write its trace to RUN_DIR/trace.json."""

    def __post_init__(self) -> None:
        for name in ("train_split", "eval_splits"):
            value = getattr(self, name)
            for split in [value] if isinstance(value, str) else value:
                if split not in (*self.family.splits, "valid"):
                    where = f" of {type(self.family).__name__} in {name}"
                    raise ConfigError(unknown("split", split, self.family.splits, where))
        lowest = {"seed": 0, "total_iterations": 0, "eval_every": 0, "eval_tasks": 1, "final_eval_tasks": 0}
        for name, low in (lowest | {"eval_repeats": 1, "checkpoint_every": 1, "num_threads": 1}).items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise ConfigError(f"{name} must be at least {low}, got {value}.")
        if self.train_tasks is not None:
            self.family.train_on(self.train_tasks)
        if self.device not in ("auto", "cpu", "cuda"):
            raise ConfigError(unknown("device", self.device, ("auto", "cpu", "cuda")))


def reported_split(config: TrainConfig) -> str:
    """The split that a run is about: `test`, or what it trains on where that is `all` or there is no `test`."""
    known = config.family.splits
    return "test" if "test" in known and config.train_split != "all" else config.train_split


FIELDS = tuple(f.name for f in dataclasses.fields(TrainConfig))


@dataclass
class Parsed:
    """What a command line says."""

    config: TrainConfig
    name: str
    """The preset's name, or the config file's, for the name of the run directory."""
    values: dict[str, Any]
    """The resolved configuration as plain data: every field with its value."""
    command: list[str]
    """The command line."""
    resume: Path | None = None
    """The run directory to continue."""

    def text(self) -> str:
        """The resolved configuration as YAML that repeats the run (hence without its run_dir)."""
        return as_yaml(self.values | {"run_dir": None})


class _Dumper(yaml.SafeDumper):
    """Writes lists on one line: ``lr: [[0.0, 0.001], [1.0, 0.0]]``."""


_Dumper.add_representer(
    list, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)
)


def as_yaml(values: dict[str, Any]) -> str:
    """Plain data as YAML for people: in its order, a line for each field."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def presets() -> list[str]:
    """Names of the configurations that come with the package."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def find(name: str) -> Path:
    """The config file of a path or of a preset's name. Raises ConfigError that names the nearest preset."""
    if Path(name).is_file():
        return Path(name)
    if name in presets():
        return PRESETS / f"{name}.yaml"
    if Path(name).suffix in (".yaml", ".yml"):
        near = unknown("preset", Path(name).stem, presets()).partition(". ")[2].replace("Known:", "Presets:")
        raise ConfigError(f"There is no config file {name!r}. {near}")
    raise ConfigError(unknown("config file or preset", name, presets()))


def read(name: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """The configuration in a file or preset, with `overrides` as on the command line."""
    return parse(["--config", str(name), *overrides]).config


def parse(args: Sequence[str]) -> Parsed:
    """Read a command line. Raises ConfigError; prints and exits on ``--help`` and ``--print_config``."""
    parser = build_parser()
    command = ["python", "-m", "metarl.train", *args]
    args, resume, source = _prepare(args)
    parser.given = args
    _CHOSEN.set(_chosen(args))
    if any(arg in ("-h", "--help") for arg in args):
        _print_help(parser, [arg for arg in args if arg not in ("-h", "--help")])
        raise SystemExit(0)
    try:
        with _modules_from_here():
            namespace = parser.parse_args(args)
        values = _plain(parser, namespace)
    except ConfigError:
        raise
    except Exception as error:  # anything that a module of the user's raises while it is imported
        raise ConfigError(explain(str(error), args, FIELDS)) from error
    try:
        built = parser.instantiate(namespace)
        config = TrainConfig(**{name: built[name] for name in FIELDS})
    except ConfigError:
        raise
    except (ValueError, TypeError, ImportError) as error:  # of a family's or an agent's constructor
        raise ConfigError(" ".join(str(error).split())) from error
    name = source.stem
    if name == "config":  # of a run that is being repeated
        name = f"{config.agent.name}_{type(config.family).__name__}".lower()
    return Parsed(config, name, values, command, resume)


@contextlib.contextmanager
def _modules_from_here() -> Iterator[None]:
    """Let '' on the module path go on meaning this folder: jsonargparse reads a config file from the file's folder."""
    here = os.getcwd()
    if "" not in sys.path:
        yield
        return
    sys.path[sys.path.index("")] = here
    try:
        yield
    finally:
        if here in sys.path:
            sys.path[sys.path.index(here)] = ""


class _Parser(ArgumentParser):
    """jsonargparse's parser, whose errors are one sentence."""

    given: Sequence[str] = ()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.given:  # one of the parsers that jsonargparse makes for the options of a class: ours explains it
            super().error(message, ex)
        raise ConfigError(explain(message, self.given, FIELDS)) from ex


def build_parser() -> _Parser:
    """The parser of ``python -m metarl.train``."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    set_loader("metarl", _load, (yaml.YAMLError,))
    parser = _Parser(
        prog="python -m metarl.train",
        description="Meta-train an agent on a task family and show how fast it adapts to tasks it has never seen.",
        epilog=f"Presets: {', '.join(presets())}.",
        parser_mode="metarl",
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument(
        "--config", action="config", help=f"A YAML file or a preset's name; without it, {DEFAULT_PRESET}."
    )
    parser.add_argument(
        "--resume",
        metavar="RUN_DIR",
        default=SUPPRESS,  # `_prepare` takes it out; it stands here for the help
        help=f"Continue the run in this folder exactly where it stopped. Beside it only: {', '.join(RESUMABLE)}.",
    )
    parser.add_argument(
        "--seeds",
        metavar="N",
        default=SUPPRESS,  # metarl.seeds takes it out
        help="Train N seeds, one after the other, from `seed` upwards, each in RUN_DIR/seed_N, and join their results.",
    )
    parser.add_argument("--quiet", action="store_true", default=SUPPRESS, help=QUIET)  # metarl.train takes it out
    parser.add_class_arguments(TrainConfig, None)
    return parser


_CHOSEN: ContextVar[dict[str, str]] = ContextVar("classes named on the command line")


def _chosen(args: Sequence[str]) -> dict[str, str]:
    """The name of the class that the command line chooses as the family and as the agent, if it does."""
    keys = {key: name for name in ("family", "agent") for key in (f"--{name}", f"--{name}.class_path")}
    given = {keys[key]: value for key, value in split_args(args) if key in keys and value is not None}
    return {name: value.rpartition(".")[2] for name, value in given.items() if not value.lstrip().startswith("{")}


def _load(text: str) -> Any:
    """YAML, in which a family may be named by an id.

    What a file says of a family or an agent goes for that class alone: jsonargparse would hand it to another class that
    is chosen on the command line, so that GridNavi had the number of episodes that suits Navigation2D.
    """
    data = get_loader("yaml")(text)
    if not isinstance(data, dict):
        return data
    family = data.get("family")
    if isinstance(family, str):
        data["family"] = _class_path(family)
    elif isinstance(family, dict) and isinstance(family.get("class_path"), str):
        data["family"] = family | {"class_path": _class_path(family["class_path"])}
    for name, chosen in _CHOSEN.get({}).items():
        part = data.get(name)
        path = part.get("class_path") if isinstance(part, dict) else part
        if isinstance(path, str) and path.rpartition(".")[2] != chosen:
            del data[name]
    return data


def _class_path(name: str) -> str:
    """The class path behind the id of a registered family, or its name in the id; other names as they are."""
    id = family_id(name)
    if id is None:
        return name
    cls = family_class(id)
    return f"{cls.__module__}.{cls.__qualname__}"


def _prepare(args: Sequence[str]) -> tuple[list[str], Path | None, Path]:
    """The command line with the config file found, and ids turned into class paths; RUN_DIR of --resume; the file."""
    pairs = split_args(args)
    resume = next((Path(value) for key, value in pairs if key == "--resume" and value is not None), None)
    if resume is not None:
        for key, _ in pairs:
            if key.startswith("--") and key[2:].split(".")[0] not in (*RESUMABLE, "resume", "help", "print_config"):
                raise ConfigError(f"{key} cannot be changed with --resume; these can: {', '.join(RESUMABLE)}.")
        if not (resume / "config.yaml").is_file():
            raise ConfigError(f"There is no run to resume in {str(resume)!r}: it has no config.yaml.")
        pairs.insert(0, ("--config", str(resume / "config.yaml")))
    elif not any(key == "--config" for key, _ in pairs):
        pairs.insert(0, ("--config", DEFAULT_PRESET))
    pairs.sort(key=lambda pair: pair[0] != "--config")  # a file does not undo what was given before it
    source = Path(DEFAULT_PRESET)
    result: list[str] = []
    for key, value in pairs:
        if key == "--config":
            if not value:
                raise ConfigError(f"--config needs a file or the name of a preset: {', '.join(presets())}.")
            source = find(value)
            value = str(source.absolute())  # jsonargparse parses, and fails, in the file's folder
        elif key in ("--family", "--family.class_path") and value is not None:
            value = _class_path(value)
        elif key == "--profile" and value is None:
            value = "true"  # a switch, as users expect
        if key != "--resume" or value is None:
            result += [key] if value is None else [f"{key}={value}"]
    return result, resume, source


def _plain(parser: ArgumentParser, namespace: Namespace) -> dict[str, Any]:
    """The resolved configuration as plain data, in the order of the fields."""
    values = json.loads(parser.dump(namespace, format="json", skip_unset=False))
    return {name: values.get(name) for name in FIELDS}


def _print_help(parser: ArgumentParser, args: list[str]) -> None:
    """The help of every field, also of the agent and of the family that the other arguments choose."""
    parser.print_help()
    namespace = parser.parse_args(args)
    for name in ("agent", "family"):
        module, _, attribute = namespace[name].class_path.rpartition(".")
        cls = getattr(importlib.import_module(module), attribute)
        part = ArgumentParser(usage="", add_help=False)
        part.add_class_arguments(cls, name)
        print(f"\nOptions of this {name}, {attribute} (another one's: --{name}.help CLASS):")
        lines = part.format_help().splitlines()[1:]
        print("\n".join(line for line in lines if not line.startswith(f"  --{name} CONFIG")))
