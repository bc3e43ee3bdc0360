"""The players of histories: ready-made agents by name, and trained ones with their family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metarl.agents.reference.catalogue import baseline
from metarl.core.checks import same_spaces
from metarl.core.family import TaskFamily
from metarl.core.rollout import Agent
from metarl.training import checkpoint
from metarl.training.config import parsing
from metarl.training.config.errors import ConfigError
from metarl.training.config.run_config import TrainConfig


class Played(NamedTuple):
    """A family, and its description in a file."""

    family: TaskFamily
    values: Mapping[str, Any]  # its id, as ``name``, and its options
    train_tasks: int | None
    fold: tuple[int, int] | None


class Source(NamedTuple):
    """An agent and the family that it plays."""

    agent: Agent
    name: str
    played: Played


def find_source(
    name: str,
    family: str | None = None,
    options: Sequence[str] = (),
    device: str = "cpu",
    which: str | int = "last",
    packages: Sequence[str] = (),
) -> Source:
    """Find an agent by its name: a run directory, ``pretrained:NAME``, or a ready-made agent of the family.

    `family` is by default the one that a trained agent was trained on; `options` of it are texts ``NAME=VALUE``, and
    `packages` register those of other projects. Raises ValueError if the agent is unknown or does not fit the
    family.
    """
    trained = name.startswith("pretrained:") or "/" in name or (Path(name) / "config.yaml").is_file()
    if family is None and not trained:
        raise ConfigError(
            f"A ready-made agent such as {name!r} needs a family to play: give --family, such as DarkRoom."
        )
    if family is None and options:
        raise ConfigError("--set changes options of --family: give both, or neither.")
    allowed = [f"--allow={package}" for package in packages]
    if family is None:
        played = _of(parsing.parse(["--config", str(checkpoint.find(name) / "config.yaml"), *allowed]))
    else:
        played = _of(parsing.parse(["--family", family, *_settings(options), *allowed]))
    if not trained:
        return Source(baseline(name, played.family, device), name, played)
    agent = checkpoint.load(name, device, which, packages)
    same_spaces(agent, played.family)
    return Source(agent, agent.title, played)


def _settings(options: Sequence[str]) -> list[str]:
    """Return the family's options in the form of ``metarl train``'s command line."""
    for option in options:
        if not option.partition("=")[0] or "=" not in option:
            raise ConfigError(f"--set needs NAME=VALUE, such as episodes_per_trial=20, got {option!r}.")
    return [f"--family.{option}" for option in options]


def _of(parsed: parsing.Parsed) -> Played:
    config: TrainConfig = parsed.config
    fold = None if config.fold is None else tuple(int(number) for number in config.fold.split("/"))
    return Played(config.family, parsed.values["family"], config.train_tasks, fold)  # type: ignore[arg-type]
