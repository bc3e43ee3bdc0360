"""What a task family is, and the registry of families.

A family turns a *task* (data) into physics. It is stateless and every method is batched over rows: a task, a state, an
observation are NamedTuples or tensors whose leading dimension is the row. A batch of one is the single environment.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl import rng
from metarl.sketch import Redrawn, Sketch, drawn

Task = Any  # a NamedTuple of tensors, leading dimension = rows; one type per family
State = Any  # likewise
Key = Tensor


class TaskFamily(ABC):
    """A distribution over tasks that share observation space, action space and episode length.

    A subclass sets the attributes below in its constructor and writes `draw_tasks`, `reset`, `observe` and `step`;
    `oracle` and a picture (`render`, or `sketch`) are optional. Rows are independent, and all randomness comes from the
    keys that a method is given, one key per row, so that a row of a batch equals a batch of one bit for bit.

    Observations are float32 tensors ``(B, *observation_space.shape)``. Actions are int64 ``(B,)`` for a Discrete
    action space and float32 ``(B, A)`` for a Box (the family clips them itself where its paper does).
    """

    observation_space: gymnasium.spaces.Box
    action_space: gymnasium.spaces.Discrete | gymnasium.spaces.Box
    horizon: int
    """Steps of one episode before it is truncated."""
    episodes_per_trial: int
    """Episodes that an agent has on one task: the papers' K."""
    splits: ClassVar[tuple[str, ...]] = ("train", "test", "ood")
    terminates: ClassVar[bool] = False
    """Whether an episode can end before `horizon`. If not, `step` returns no row as terminated."""
    noisy: ClassVar[bool] = True
    """Whether `step` draws from its key. If not, it is given a key that is the same at every step, which costs less."""
    random_start: ClassVar[bool] = True
    """Whether `reset` draws from its key. If not, it is given one that is the same in every episode, likewise."""

    def sample_tasks(self, key: Key, n: int, split: str = "train", first: int = 0) -> Task:
        """`n` tasks of a split: numbers `first` to ``first + n - 1`` of the stream that `key` (a scalar key) names.

        Task i depends on (key, split, i) alone, so every split has a stream of its own and a shard of a meta-batch
        holds the same tasks as the whole. Raises ValueError for a split that the family does not have.
        """
        if split not in self.splits:
            raise ValueError(unknown("split", split, self.splits, where=f" of {type(self).__name__}"))
        # The address of a split is its name's place in the global list, so that adding a split moves no stream.
        stream = rng.fold(key, ("train", "test", "ood", "all").index(split))
        return self.draw_tasks(rng.fold(stream, torch.arange(first, first + n, device=key.device)), split)

    @abstractmethod
    def draw_tasks(self, keys: Key, split: str) -> Task:
        """One task per key ``(N,)``. `split` is one of `splits`; call `sample_tasks` instead."""

    @abstractmethod
    def reset(self, task: Task, key: Key) -> State:
        """The first state of an episode of each row. `key` is ``(B,)``."""

    @abstractmethod
    def observe(self, task: Task, state: State) -> Tensor:
        """float32 observation ``(B, *observation_space.shape)``. It must not tell which task it is."""

    @abstractmethod
    def step(self, task: Task, state: State, action: Tensor, key: Key) -> tuple[State, Tensor, Tensor]:
        """Next state, reward float32 ``(B,)``, terminated bool ``(B,)``. `key` is ``(B,)``. Must not modify `state`."""

    def oracle(self, task: Task) -> Tensor | None:
        """Best known expected return of one episode when the task is told, float32 ``(B,)``; None if unknown."""
        return None

    def random_return(self, task: Task) -> Tensor | None:
        """Exact expected return of one episode of the uniformly random policy, float32 ``(B,)``; None if unknown."""
        return None

    def render(self, task: Task, states: list[State]) -> np.ndarray:
        """A picture of the visited `states` of one row (leading dimension 1): uint8 ``(height, width, 3)``.

        It has the same size for all tasks and numbers of states. Write this, or, so that a picture after every step
        of a long episode is no more work than the last one, `sketch`; then this takes the states as one episode.
        """
        if not has_picture(self):
            raise NotImplementedError(f"{type(self).__name__} has no picture: write its render(task, states).")
        return drawn(self.sketch(task, self.episodes_per_trial), [states])

    def __repr__(self) -> str:
        return made_with(self)

    def sketch(self, task: Task, episodes: int = 1) -> Sketch:
        """An empty picture of one row, to which visited states are added, of so many `episodes`.

        Its size may depend on the family's options and on `episodes`, but on nothing else.
        """
        return Redrawn(functools.partial(self.render, task))


def made_with(thing: Any) -> str:
    """An object and the options it was made with, where it keeps them: ``GridNavi(episodes_per_trial=4)``.

    Options are the constructor's parameters but for tensors and devices; None is shown where it is not the default.
    """
    kept, options = vars(thing), []
    for name, parameter in inspect.signature(type(thing)).parameters.items():
        value = kept.get(name)
        long = isinstance(value, (Tensor, torch.device))
        if name in kept and not long and not (value is None and parameter.default is None):
            options.append(f"{name}={value!r}")
    return f"{type(thing).__name__}({', '.join(options)})"


def has_picture(family: TaskFamily) -> bool:
    """Whether the family draws itself."""
    return type(family).render is not TaskFamily.render or type(family).sketch is not TaskFamily.sketch


def unknown(kind: str, given: str, known: Iterable[str], where: str = "") -> str:
    """The sentence for a name that does not exist: what was given, the nearest name that does, and all of them."""
    names = list(known)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown {kind}{where}: {given!r}.{hint} Known: {', '.join(names)}."


def take(task: Any, index: Any) -> Any:
    """Rows `index` (a slice, or an index or mask tensor) of a NamedTuple of tensors (nested ones too)."""
    if isinstance(task, Tensor):
        return task[index]
    return type(task)(*(take(field, index) for field in task))


def num_rows(task: Any) -> int:
    """The leading dimension of a task or a state."""
    while not isinstance(task, Tensor):
        task = task[0]
    return int(task.shape[0])


def to_device(value: Any, device: torch.device | str) -> Any:
    """The same NamedTuple of tensors (nested ones too) on `device`."""
    if isinstance(value, Tensor):
        return value.to(device)
    return type(value)(*(to_device(field, device) for field in value))


def features(task: Task) -> Tensor:
    """The task as one float32 vector per row ``(B, D)``: what a task-conditioned network sees."""
    parts = [field if isinstance(field, Tensor) else features(field) for field in task]
    return torch.cat([part.reshape(part.shape[0], -1).to(torch.float32) for part in parts], dim=1)


_REGISTRY: dict[str, Callable[..., TaskFamily] | str] = {}
_ON_REGISTER: list[Callable[[str], None]] = []


def register(id: str, family: Callable[..., TaskFamily] | str) -> None:
    """Make `family` (a TaskFamily class, or "module:Class") known as `id`, e.g. ``"theirs/Mine-v0"``.

    It also becomes a Gymnasium id once `metarl` is imported. Registering the same family again is harmless;
    another family under a taken id raises ValueError.
    """
    if "/" not in id or "-v" not in id:
        raise ValueError(f"A family's id looks like 'namespace/Name-v0', got {id!r}.")
    if _REGISTRY.get(id, family) is not family and _path(_REGISTRY[id]) != _path(family):
        raise ValueError(f"The id {id!r} is already taken by {_path(_REGISTRY[id])}.")
    _REGISTRY[id] = family
    for hook in _ON_REGISTER:
        hook(id)


def registered() -> list[str]:
    """The ids of all registered families, sorted."""
    return sorted(_REGISTRY)


def family_class(id: str) -> type[TaskFamily]:
    """The class behind a registered id. Raises ValueError that names the nearest id if there is none."""
    if id not in _REGISTRY:
        raise ValueError(unknown("task family", id, registered()))
    entry = _REGISTRY[id]
    if isinstance(entry, str):
        module, _, name = entry.partition(":")
        entry = getattr(importlib.import_module(module), name)
    return entry  # type: ignore[return-value]


def make(id: str, **kwargs: Any) -> TaskFamily:
    """The family registered as `id`. Raises ValueError for an unknown id or a keyword that it does not take."""
    cls = family_class(id)
    known = [name for name in inspect.signature(cls).parameters if name not in ("args", "kwargs")]
    for name in kwargs:
        if name not in known:
            raise ValueError(unknown("option", name, known, where=f" of {id}"))
    return cls(**kwargs)


def on_register(hook: Callable[[str], None]) -> None:
    """Call `hook(id)` for every family registered so far and from now on (the Gymnasium view uses it)."""
    _ON_REGISTER.append(hook)
    for id in registered():
        hook(id)


def _path(family: Callable[..., TaskFamily] | str) -> str:
    return family if isinstance(family, str) else f"{family.__module__}:{family.__qualname__}"
