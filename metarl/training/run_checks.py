"""Checks of a run before anything is built or written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gymnasium import Space

from metarl.core.faults.memory import check_memory, row_numbers
from metarl.evaluation.arguments import check_size
from metarl.testing import quick_check
from metarl.training.config.errors import ConfigError
from metarl.training.config.parsing import Parsed
from metarl.training.config.run_config import TrainConfig


def check_run(parsed: Parsed, warn: Callable[[str], None]) -> None:
    """Raise ConfigError for a family that breaks its contract, or for a run that could not be loaded.

    A fault that spoils only an evaluation or a picture is passed to `warn`, and the run goes on.
    """
    check_iteration(parsed.config)
    check_contract(parsed.config, warn)
    check_evaluations(parsed.config)
    if "__main__" in parsed.config.allow:
        raise ConfigError(
            "The family or the agent is registered in the program itself (__main__), where no other program finds it, "
            "so the run could not be loaded: register it in a module, and give --allow MODULE, or allow=['MODULE'] in "
            "Python."
        )


def check_iteration(config: TrainConfig) -> None:
    """Raise ConfigError if this machine does not have enough memory for the trials of an iteration."""
    family, agent = config.family, config.agent
    numbers = (family.horizon, family.episodes_per_trial)
    if not isinstance(family.observation_space, Space) or not all(type(number) is int for number in numbers):
        return  # a family that breaks its contract, which says how
    each, inner_steps = getattr(agent, "fast_batch_size", None), getattr(agent, "inner_steps", 0)
    steps = getattr(agent, "num_steps", None) or family.horizon * (1 if each else family.episodes_per_trial)
    rounds, rows = 1.0 + inner_steps, float(agent.meta_batch_size) * (each if each and inner_steps else 1)
    options = [f"agent.{name}" for name in ("meta_batch_size", "fast_batch_size", "inner_steps", "num_steps")]
    known = [option for option in options if getattr(agent, option.removeprefix("agent."), None) is not None]
    try:
        check_memory("An iteration", rounds * rows * steps * row_numbers(family), " or ".join(known))
    except ValueError as mistake:
        raise ConfigError(str(mistake)) from mistake


def check_evaluations(config: TrainConfig) -> None:
    """Raise ConfigError if this machine does not have enough memory for an evaluation of the run."""
    agent = config.agent
    each = getattr(agent, "test_fast_batch_size", None) or getattr(agent, "fast_batch_size", 1)
    rounds = getattr(agent, "test_steps", 0) + 1
    how: dict[str, Any] = {"episodes": 1, "rounds": rounds, "each": each} if rounds > 1 else {}
    try:
        for split in config.eval_splits if config.eval_every else ():
            check_size(config.family, split, config.eval_tasks, config.eval_repeats, **how)
        for split in config.family.splits if config.final_eval_tasks else ():
            check_size(config.family, split, config.final_eval_tasks, config.final_eval_repeats, **how)
    except ValueError as mistake:
        raise ConfigError(str(mistake)) from mistake


def check_contract(config: TrainConfig, warn: Callable[[str], None]) -> None:
    """Raise ConfigError for a family that breaks its contract; pass faults that spoil only an evaluation to `warn`."""
    try:
        spoiled = quick_check(config.family, config.train_split)
    except AssertionError as broken:
        raise ConfigError(str(broken)) from broken
    for sentence in spoiled:
        warn(sentence)
