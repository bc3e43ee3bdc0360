"""Checks of a run before anything is built or written."""

from __future__ import annotations

from collections.abc import Callable

from metarl.config import Parsed, TrainConfig
from metarl.config_errors import ConfigError
from metarl.testing import quick_check


def check_run(parsed: Parsed, warn: Callable[[str], None]) -> None:
    """Raise ConfigError for a family that breaks its contract, or for a run that could not be loaded.

    A fault that spoils only an evaluation or a picture is passed to `warn`, and the run goes on.
    """
    check_contract(parsed.config, warn)
    for name in ("family", "agent"):
        path = parsed.values[name]["class_path"]
        if path.startswith("__main__"):  # a factory; `check_contract` sees the classes there
            raise ConfigError(
                f"The {name} {path!r} is made in the program itself (__main__), where no other program finds it, so "
                "the run could not be loaded: put it into a module."
            )


def check_contract(config: TrainConfig, warn: Callable[[str], None]) -> None:
    """The part of `check_run` that looks at the family and the agent themselves."""
    for name, cls in (("family", type(config.family)), ("agent", type(config.agent))):
        if cls.__module__ == "__main__":
            raise ConfigError(
                f"The {name} {cls.__name__} is defined in the program itself (__main__), where no other program finds "
                f"it, so the run could not be loaded: put it into a module and give --{name} MODULE.{cls.__name__}."
            )
    try:
        spoiled = quick_check(config.family, config.train_split)
    except AssertionError as broken:
        raise ConfigError(str(broken)) from broken
    for sentence in spoiled:
        warn(sentence)
