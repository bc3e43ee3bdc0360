"""Priorities: draws follow them, and importance weights undo what they do to a mean."""

from __future__ import annotations

import pytest
import torch

from metarl.core import rng
from metarl.learning.priorities import Priorities


def filled(priority: list[float], exponent: float = 0.9) -> Priorities:
    priorities = Priorities(len(priority), exponent)
    priorities.put(torch.arange(len(priority)), torch.tensor(priority))
    return priorities


@pytest.mark.parametrize("exponent", [0.0, 0.5, 0.9, 1.0, 2.0])
def test_entries_are_drawn_as_often_as_their_priorities_say(exponent: float):
    priority, n = [3.0, 0.0, 0.5, 1.0, 0.0, 7.0, 0.0], 40_000
    found = filled(priority, exponent).draw(rng.key(0), n, 0.6).entry.bincount(minlength=7) / n
    power = [p**exponent if p else 0.0 for p in priority]
    for share, wanted in zip(found.tolist(), power, strict=True):
        p = wanted / sum(power)
        assert abs(share - p) <= 5.0 * (p * (1.0 - p) / n) ** 0.5


def test_the_least_draw_is_of_an_entry_with_a_priority(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rng, "uniform", lambda key, n: torch.zeros(n))
    assert filled([0.0, 0.0, 3.0, 1.0]).draw(rng.key(0), 2, 0.6).entry.tolist() == [2, 2]


def test_a_change_is_a_change_of_what_is_drawn():
    priorities = filled([1.0, 1.0, 1.0])
    priorities.put(torch.tensor([2, 0]), torch.tensor([0.0, 0.0]))
    assert set(priorities.draw(rng.key(0), 100, 0.6).entry.tolist()) == {1}


@pytest.mark.parametrize("importance", [0.0, 0.6, 1.0])
def test_the_weights_are_those_of_the_paper(importance: float):
    priority = torch.tensor([0.2, 1.0, 4.0, 0.0])
    drawn = filled(priority.tolist()).draw(rng.key(1), 500, importance)
    probability = priority.double() ** 0.9 / (priority.double() ** 0.9).sum()
    wanted = (3 * probability[drawn.entry]) ** -importance
    torch.testing.assert_close(drawn.weight, wanted / wanted.max())


def test_weights_in_full_give_back_the_mean_over_all_entries():
    """In proportion: they are divided by the largest."""
    x = torch.tensor([5.0, -1.0, 2.0, 8.0], dtype=torch.float64)
    drawn = filled([0.1, 3.0, 1.0, 0.4]).draw(rng.key(2), 200_000, 1.0)
    mean = (x[drawn.entry] * drawn.weight).sum() / drawn.weight.sum()
    assert abs(float(mean - x.mean())) < 0.1


def test_only_the_first_entries_are_drawn_if_so_asked():
    priorities = filled([1.0, 1.0, 1.0, 100.0])
    assert set(priorities.draw(rng.key(0), 300, 0.6, among=3).entry.tolist()) == {0, 1, 2}


def test_one_of_a_hundred_thousand_entries_is_found():
    priorities = Priorities(100_000, 0.9)
    priorities.put(torch.tensor([77_777]), torch.tensor([1e-6]))
    assert priorities.draw(rng.key(0), 50, 0.6).entry.unique().tolist() == [77_777]


def test_priorities_that_are_all_zero_give_finite_weights():
    assert torch.equal(Priorities(3, 0.9).draw(rng.key(0), 2, 0.6).weight, torch.ones(2, dtype=torch.float64))
