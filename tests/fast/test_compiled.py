"""Compiled steps are the plain ones, whatever the family; and plain ones where nothing can be compiled."""

from __future__ import annotations

import os
import shutil

import pytest
import torch
from small_families import Corridor, Length, Reach, TwoDoors

import metarl
from metarl.core import rng
from metarl.core.batch_env import BatchEnv
from metarl.core.family import TaskFamily
from metarl.envs import PLAIN
from metarl.fast import compiled
from metarl.fast.compiled import CompiledEnv, is_whole
from metarl.testing.contract import random_action

needs_compiler = pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="no C++ compiler")


CORRIDOR = Corridor()  # one for all tests: its programs take seconds to make


def envs(family: TaskFamily, rows: int, together: int) -> tuple[BatchEnv, CompiledEnv]:
    key = rng.key(3)
    task = family.sample_tasks(key, rows)
    return BatchEnv(family, task, key, first_row=5), CompiledEnv(family, task, key, first_row=5, together=together)


def actions(family: TaskFamily, rows: int, steps: int) -> torch.Tensor:
    keys = rng.fold(rng.fold(rng.key(4), torch.arange(steps))[:, None], torch.arange(rows))
    return torch.stack([random_action(family.action_space, key) for key in keys])


def assert_alike(plain: object, other: object) -> None:
    if isinstance(plain, torch.Tensor):
        torch.testing.assert_close(other, plain, rtol=1e-4, atol=1e-4)
    else:
        assert type(plain) is type(other)
        for a, b in zip(plain, other, strict=True):  # type: ignore[call-overload]
            assert_alike(a, b)


def check(family: TaskFamily, rows: int = 6, steps: int = 13, together: int = 2) -> CompiledEnv:
    """Two trials each, with all that can be seen of them."""
    plain, other = envs(family, rows, together)
    for _ in range(2):
        assert_alike(plain.reset(), other.reset())
        chosen = actions(family, rows, steps)
        assert_alike([plain.step(action) for action in chosen], other.play(chosen))
        assert_alike(plain.state, other.state)
        assert_alike(plain.final_state, other.final_state)
        assert torch.equal(plain.episode, other.episode) and plain.all_done() == other.all_done()
    return other


@needs_compiler
@pytest.mark.parametrize("family", [CORRIDOR, TwoDoors(), Reach(horizon=4)], ids=lambda f: type(f).__name__)
def test_compiled_trials_are_the_plain_ones(family: TaskFamily):
    """With draws in every step and start, with episodes of one step, and with a horizon that programs cross."""
    assert check(family).why_not is None


class Replaces(Reach):
    """Whose next state is the last one with another field."""

    def step(self, task, state, action, key):
        after, reward, terminated = super().step(task, state, action, key)
        return after._replace(position=after.position), reward, terminated


@needs_compiler
def test_what_the_compiler_gets_wrong_is_played_plainly():
    """Some versions of torch fail at a `_replace`, or lose its fields in silence; `check` compares with plain steps."""
    check(Replaces(horizon=4))


def test_a_tuple_that_has_lost_its_fields():
    whole = envs(CORRIDOR, 2, 1)[0].reset()
    assert is_whole([(whole, {}), 1]) and is_whole(())
    assert not is_whole([(tuple.__new__(type(whole)), 1)])


@needs_compiler
def test_draws_are_the_same_bits():
    plain, other = envs(CORRIDOR, rows=6, together=2)
    assert torch.equal(plain.reset().obs, other.reset().obs)
    for action in actions(CORRIDOR, 6, 13):
        (_, a), (_, b) = plain.step(action), other.step(action)
        assert torch.equal(a.obs[:, 1], b.obs[:, 1])  # the mark, drawn at every start
    assert other.why_not is None


@needs_compiler
def test_a_row_that_restarts_alone_does_as_in_a_plain_environment():
    plain, other = envs(CORRIDOR, rows=6, together=2)
    chosen = actions(CORRIDOR, 6, 8)
    for env in (plain, other):
        env.reset()
        for action in chosen[:3]:
            env.step(action)
    arguments = torch.tensor([4, 1]), Length(torch.tensor([2, 6])), 40
    assert_alike(plain.restart(*arguments), other.restart(*arguments))
    assert_alike([plain.step(action) for action in chosen], [other.step(action) for action in chosen])
    assert other.why_not is None


@needs_compiler
def test_rows_that_are_no_longer_in_step_do_as_in_a_plain_environment():
    """No episode of this family ends early; a row that restarts alone ends at another time than the others."""
    family = Reach(horizon=4)
    plain, other = envs(family, rows=6, together=2)
    chosen = actions(family, 6, 11)
    for env in (plain, other):
        env.reset()
        for action in chosen[:3]:
            env.step(action)
    arguments = torch.tensor([4, 1]), family.sample_tasks(rng.key(3), 2), 40
    assert_alike(plain.restart(*arguments), other.restart(*arguments))
    assert_alike([plain.step(action) for action in chosen], [other.step(action) for action in chosen])
    assert other.why_not is None


class Looking(Corridor):
    """Decides in Python what its numbers are."""

    def step(self, task, state, action, key):
        if bool((state.place > 0).any()):
            key = rng.fold(key, 1)
        return super().step(task, state, action, key)


def test_a_family_that_cannot_be_compiled_is_played_all_the_same():
    other = check(Looking())
    assert other.why_not


def test_without_a_compiler_steps_are_plain(monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object, **__: object) -> object:
        raise RuntimeError("No working C++ compiler found.\nmore")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: broken)
    assert check(Corridor()).why_not == "RuntimeError: No working C++ compiler found."


@needs_compiler
def test_a_family_is_compiled_once_for_all_its_environments():
    family = Reach()
    assert compiled.program(family) is compiled.program(family) is not compiled.program(Reach())


def test_programs_of_no_steps_are_refused():
    with pytest.raises(ValueError, match="together"):
        envs(Reach(), 2, together=0)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("id", [f"metarl/{name}-v0" for name in sorted(PLAIN)])
def test_every_registered_family_can_be_compiled(id: str):
    assert check(metarl.make(id), rows=40, steps=24, together=1).why_not is None
