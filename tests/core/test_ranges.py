"""The rules that stand beside the defaults of options: every number has one, and what breaks it is one sentence."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

import metarl.agents  # noqa: F401  (registers the agents)
from metarl.core.agent import AgentConfig, LearningAgent, Schedule, agent_class, registered_agents
from metarl.core.family import TaskFamily
from metarl.core.options import (
    FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    POSITIVE_FINITE,
    SHARE,
    at_least,
    between,
    one_of,
    option,
    parts_of,
)

OURS = [name for name in registered_agents() if agent_class(name).__module__.startswith("metarl.")]


@dataclasses.dataclass
class Some(AgentConfig):
    lr: Schedule = option(0.1, between(0, 1))
    sizes: tuple[int, ...] = option((2, 3), at_least(1))
    chunk: int | None = option(None, at_least(1))
    kind: str = option("plain", one_of("plain", "fancy"))
    positive: float = option(1.0, POSITIVE)
    positive_finite: float = option(1.0, POSITIVE_FINITE)
    not_negative: float = option(0.0, NOT_NEGATIVE)
    share: float | None = option(None, SHARE)
    between: float = option(0.5, FRACTION)

    def build(self, family: TaskFamily, seed: int, device: torch.device) -> LearningAgent:
        raise NotImplementedError


WRONG = [
    ("meta_batch_size", 0, "meta_batch_size must be at least 1, got 0."),
    ("lr", 1.5, "lr must lie in [0, 1], got 1.5."),
    ("lr", [], "lr must lie in [0, 1], got []."),
    ("lr", [(0.0, 0.1), (1.0, -1.0)], "lr must lie in [0, 1], got [(0.0, 0.1), (1.0, -1.0)]."),
    ("lr", [(0.5, 0.1), (0.0, 0.2)], "lr's points must be in the order of training progress, got "),
    ("sizes", [8, 0], "sizes must be at least 1 each, got [8, 0]."),
    ("chunk", 0, "chunk must be at least 1 or be null, got 0."),
    ("kind", "fancier", "Unknown kind: 'fancier'. Did you mean 'fancy'?"),
    ("positive", 0.0, "positive must be positive, got 0.0."),
    ("positive_finite", math.inf, "positive_finite must be positive and finite, got inf."),
    ("not_negative", -1.0, "not_negative must be finite and not negative, got -1.0."),
    ("not_negative", math.inf, "not_negative must be finite and not negative, got inf."),
    ("share", 0.0, "share must lie in (0, 1] or be null, got 0.0."),
    ("between", 1.0, "between must lie between 0 and 1, got 1.0."),
]


@pytest.mark.parametrize(("name", "value", "sentence"), WRONG, ids=lambda part: str(part)[:20])
def test_a_broken_rule_is_one_sentence(name: str, value: object, sentence: str):
    with pytest.raises(ValueError) as caught:
        Some(**{name: value})  # type: ignore[arg-type]
    assert str(caught.value).startswith(sentence)


def test_what_keeps_the_rules_is_taken():
    made = Some(lr=[(0.0, 0.1), (0.5, 1.0), (1.0, 0.0)], sizes=[4], chunk=3, positive=math.inf, share=1.0)  # type: ignore[arg-type]
    assert made.sizes == (4,), "a list from a file becomes what the default is"
    assert Some().chunk is None and Some() == Some(), "defaults are values, not rules"


@pytest.mark.parametrize("name", OURS)
def test_every_number_of_ours_has_a_rule_that_nan_breaks(name: str):
    config_class = agent_class(name)
    for field in dataclasses.fields(config_class):
        if field.type == "bool" or field.name in parts_of(config_class):
            continue
        assert "rule" in field.metadata, f"{name}.{field.name} takes anything"
        if field.type in ("float", "float | None", "Schedule"):
            with pytest.raises(ValueError, match=f"{field.name} must"):
                config_class(**{field.name: math.nan})
