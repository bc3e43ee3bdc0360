"""Options pass through subclasses, functions and partials as in Python, wherever a family is made by its id."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import yaml
from toy import TOY

import metarl
from metarl.core import registry
from metarl.core.options import MISSING, options_of, own_options, takes_any
from metarl.envs import Navigation2D
from metarl.evaluation.evaluator import describe
from metarl.report.card import card
from metarl.training.config import parsing as config
from metarl.training.config.errors import ConfigError


class Passes(Navigation2D):
    """Hands on what it does not know.

    Args:
        extra: Its own.
    """

    def __init__(self, extra: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.extra = extra


class PassesTwice(Passes):
    def __init__(self, more: str = "a", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.more = more


class Fixes(Navigation2D):
    """Gives one of its parent's options, which is then none of its own."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(horizon=7, **kwargs)


class Prefers(Navigation2D):
    """Has another default than its parent."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("horizon", 7)
        super().__init__(**kwargs)


class Merges(Navigation2D):
    """Hands its options on in a way that the source does not show."""

    def __init__(self, extra: int = 1, **kwargs: Any) -> None:
        super().__init__(**{"horizon": 7} | kwargs)
        self.extra = extra


class Needs(Navigation2D):
    def __init__(self, extra: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.extra = extra


def function(extra: int = 1, **kwargs: Any) -> Navigation2D:
    return Passes(extra, **kwargs)


def no_hint(extra=1, **kwargs):
    return Passes(extra, **kwargs)


class Calls:
    def __call__(self, extra: int = 1, **kwargs: Any) -> Navigation2D:
        return Passes(extra, **kwargs)


class Alternative(Navigation2D):
    @classmethod
    def short(cls, **kwargs: Any) -> Alternative:
        return cls(**{"horizon": 7} | kwargs)


NAVIGATION = {"horizon": 100, "episodes_per_trial": 2}
FACTORIES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "class": (Navigation2D, NAVIGATION),
    "subclass": (Passes, {"extra": 1} | NAVIGATION),
    "its subclass": (PassesTwice, {"more": "a", "extra": 1} | NAVIGATION),
    "fixed": (Fixes, {"episodes_per_trial": 2}),
    "preferred": (Prefers, NAVIGATION),
    "merged": (Merges, {"extra": 1} | NAVIGATION),
    "required": (Needs, {"extra": MISSING} | NAVIGATION),
    "function": (function, {"extra": 1} | NAVIGATION),
    "no type hints": (no_hint, {"extra": 1} | NAVIGATION),
    "lambda": (lambda horizon=7, **kwargs: Navigation2D(horizon, **kwargs), {"horizon": 7}),
    "object": (Calls(), {"extra": 1} | NAVIGATION),
    "class method": (Alternative.short, NAVIGATION),
    "partial": (functools.partial(Navigation2D, horizon=7), NAVIGATION | {"horizon": 7}),
    "partial, by place": (functools.partial(Navigation2D, 7), {"episodes_per_trial": 2}),
    "partial of a subclass": (functools.partial(Passes, horizon=7), {"extra": 1} | NAVIGATION | {"horizon": 7}),
    "partial of a partial": (functools.partial(functools.partial(Passes, 3), horizon=7), NAVIGATION | {"horizon": 7}),
}
MADE = [name for name in FACTORIES if name != "required"]


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The factories registered, for this test alone: name → id."""
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    monkeypatch.setattr(registry, "_REGISTERED_IN", dict(registry._REGISTERED_IN))
    monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.registry))
    monkeypatch.setattr(gymnasium, "registry", gymnasium.envs.registration.registry)
    ids = {name: f"theirs/Factory{number}-v0" for number, name in enumerate(FACTORIES)}
    for name, id in ids.items():
        metarl.register(id, FACTORIES[name][0])
    return ids


@pytest.mark.parametrize("name", FACTORIES)
def test_the_options_of_a_factory(name: str):
    factory, expected = FACTORIES[name]
    assert options_of(factory) == expected
    assert list(options_of(factory))[: len(own_options(factory))] == list(own_options(factory)), "its own come first"


def test_the_source_is_not_needed():
    names: dict[str, Any] = {"Navigation2D": Navigation2D}
    exec(
        "class Typed(Navigation2D):\n    def __init__(self, a=3, **kwargs):\n        super().__init__(**kwargs)", names
    )
    assert options_of(names["Typed"]) == {"a": 3} | NAVIGATION


@pytest.mark.parametrize("name", MADE)
def test_what_python_takes_is_taken_everywhere(name: str, known: dict[str, str], tmp_path: Path):
    """By `make`, Gymnasium, a file and the command line, and nothing that Python refuses."""
    factory, id = FACTORIES[name][0], known[name]
    path = tmp_path / "theirs.yaml"
    for option, value in {"horizon": 9, "episodes_per_trial": 5, "extra": 6, "nothing": 1}.items():
        path.write_text(yaml.safe_dump(yaml.safe_load(TOY) | {"family": {"name": id, option: value}}))
        ways: dict[str, Callable[[], Any]] = {
            "make": lambda o=option, v=value: metarl.make(id, **{o: v}),
            "gymnasium": lambda o=option, v=value: gymnasium.make(id, **{o: v}).unwrapped.family,
            "file": lambda: config.read(path).family,
            "line": lambda o=option, v=value: config.parse([f"--family={id}", f"--family.{o}={v}"]).config.family,
        }
        expected = None
        with contextlib.suppress(TypeError):
            expected = vars(factory(**{option: value}))
        for way in ways.values():
            if expected is None:
                with pytest.raises(ValueError, match=option):
                    way()
            else:
                assert vars(way()).items() >= {(k, v) for k, v in expected.items() if isinstance(v, int | str)}


@pytest.mark.parametrize("name", MADE)
def test_a_run_s_configuration_makes_the_same_family(name: str, known: dict[str, str], tmp_path: Path):
    first = config.parse([f"--family={known[name]}"])
    path = tmp_path / "config.yaml"
    path.write_text(first.text())
    second = config.parse([f"--config={path}"])
    assert vars(second.config.family) == vars(first.config.family)
    assert second.text() == first.text()


def test_a_run_s_configuration_has_the_options_that_are_passed_on(known: dict[str, str]):
    """Where the family shows that they are what its parent's defaults say."""
    values = {name: config.parse([f"--family={known[name]}"]).values["family"] for name in ("subclass", "preferred")}
    assert values["subclass"] == {"name": known["subclass"], "extra": 1} | NAVIGATION
    assert values["preferred"] == {"name": known["preferred"], "episodes_per_trial": 2}, (
        "the parent's horizon is 100, and it is not taken"
    )


def test_a_configuration_holds_ids_and_which_module_registers_them(known: dict[str, str]):
    for name in MADE:
        values = config.parse([f"--family={known[name]}"]).values
        assert values["family"]["name"] == known[name] and values["allow"] == ["test_options"]
    ours = config.parse([]).values
    assert (ours["family"]["name"], ours["agent"]["name"]) == ("metarl/Navigation2D-v0", "RL2") and ours["allow"] == []


def test_an_option_called_name_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(registry._REGISTRY, "theirs/Named-v0", lambda name="x": Navigation2D())
    monkeypatch.setitem(registry._REGISTERED_IN, "theirs/Named-v0", __name__)
    with pytest.raises(ConfigError, match="theirs/Named-v0 has an option called 'name', which stands for the family"):
        config.parse(["--family=theirs/Named-v0"])


def test_they_are_shown(known: dict[str, str], capsys: pytest.CaptureFixture[str]):
    assert describe(metarl.make(known["subclass"], horizon=9)) == "Passes(extra=1, horizon=9, episodes_per_trial=2)"
    assert card(known["partial"]).call == "Navigation2D(horizon=7, episodes_per_trial=2)"
    with pytest.raises(SystemExit):
        config.parse([f"--family={known['subclass']}", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "--family.extra EXTRA Its own. (type: int, default: 1)" in shown and "--family.horizon" in shown


def test_a_wrong_option_is_named_with_the_nearest_that_is_passed_on(known: dict[str, str]):
    for name in ("subclass", "function", "partial of a subclass", "merged"):
        sentence = "Did you mean 'horizon'?"
        with pytest.raises(ValueError, match=sentence):
            metarl.make(known[name], horizn=3)
        with pytest.raises(ConfigError, match=sentence):
            config.parse([f"--family={known[name]}", "--family.horizn=3"])
    with pytest.raises(ConfigError, match=r"family\.horizon must be a whole number, got 'many'"):
        config.parse([f"--family={known['subclass']}", "--family.horizon=many"])
    with pytest.raises(ConfigError, match=r"needs the option 'extra': set family\.extra"):
        config.parse([f"--family={known['required']}"])


def test_an_error_of_the_constructor_s_own_is_not_taken_for_a_wrong_option(monkeypatch: pytest.MonkeyPatch):
    def broken(horizon: int = 1) -> Navigation2D:
        return Navigation2D(size=horizon)  # type: ignore[call-arg]

    monkeypatch.setattr(registry, "_REGISTRY", {"theirs/Broken-v0": broken})
    with pytest.raises(TypeError, match="size"):
        metarl.make("theirs/Broken-v0", horizon=3)


def test_a_factory_makes_a_family(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(registry._REGISTRY, "theirs/Dict-v0", dict)
    monkeypatch.setitem(registry._REGISTERED_IN, "theirs/Dict-v0", __name__)
    with pytest.raises(ValueError, match="theirs/Dict-v0 must make a TaskFamily, got a value of dict"):
        metarl.make("theirs/Dict-v0")
    with pytest.raises(ConfigError, match="must make a TaskFamily"):
        config.parse(["--family=theirs/Dict-v0"])


def test_registering_the_same_again_is_harmless_and_another_is_refused(known: dict[str, str]):
    metarl.register(known["partial"], functools.partial(Navigation2D, horizon=7))
    for other in (functools.partial(Navigation2D, horizon=8), lambda: Navigation2D(), Passes):
        with pytest.raises(ValueError, match="already taken by"):
            metarl.register(known["partial"], other)
        with pytest.raises(ValueError, match="already taken by"):
            metarl.register(known["lambda"], other)


def test_what_takes_anything():
    assert takes_any(Passes) and takes_any(functools.partial(Passes, 1)) and takes_any(dict)
    assert not takes_any(Navigation2D) and not takes_any(functools.partial(Navigation2D, 1))
