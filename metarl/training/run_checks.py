"""Checks of a run before anything is built or written."""

from __future__ import annotations

from collections.abc import Callable

from metarl.testing import quick_check
from metarl.training.config.errors import ConfigError
from metarl.training.config.parsing import Parsed
from metarl.training.config.run_config import TrainConfig


def check_run(parsed: Parsed, warn: Callable[[str], None]) -> None:
    """Raise ConfigError for a family that breaks its contract, or for a run that could not be loaded.

    A fault that spoils only an evaluation or a picture is passed to `warn`, and the run goes on.
    """
    check_contract(parsed.config, warn)
    if "__main__" in parsed.config.allow:
        raise ConfigError(
            "The family or the agent is registered in the program itself (__main__), where no other program finds it, "
            "so the run could not be loaded: register it in a module, and give --allow MODULE."
        )


def check_contract(config: TrainConfig, warn: Callable[[str], None]) -> None:
    """Raise ConfigError for a family that breaks its contract; pass faults that spoil only an evaluation to `warn`."""
    try:
        spoiled = quick_check(config.family, config.train_split)
    except AssertionError as broken:
        raise ConfigError(str(broken)) from broken
    for sentence in spoiled:
        warn(sentence)
