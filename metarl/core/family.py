"""What a task family is.

A family turns a *task* (data) into physics. It is stateless and every method is batched over rows: a task, a state, an
observation are NamedTuples or tensors whose leading dimension is the row. A batch of one is the single environment.
"""

from __future__ import annotations

import functools
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.errors import unknown
from metarl.core.options import options_of
from metarl.core.tree import num_rows, take, to_device

StateT = TypeVar("StateT")
"""A family's type of state: a tensor, or a NamedTuple of them, whose leading dimension is the row."""


class Sketch(ABC, Generic[StateT]):
    """A picture of one row's trial that grows state by state.

    The work of `add` and `image` does not depend on how much has been added before (on average: a sketch may now and
    then draw everything again, for example in half the size, when what it shows has become twice as large).
    """

    @abstractmethod
    def add(self, state: StateT, first: bool = False) -> None:
        """Draw one more visited state (leading dimension 1); `first` where an episode begins with it."""

    @abstractmethod
    def image(self) -> np.ndarray:
        """The picture so far: uint8 ``(height, width, 3)``, of the same size at every call."""


class Redrawn(Sketch[StateT]):
    """The sketch of a family that draws all visited states anew each time: ``render(states)``."""

    def __init__(self, render: Callable[[list[StateT]], np.ndarray]) -> None:
        self.render = render
        self.states: list[StateT] = []

    def add(self, state: StateT, first: bool = False) -> None:
        self.states.append(state)

    def image(self) -> np.ndarray:
        return np.array(self.render(self.states))


def drawn(sketch: Sketch[StateT], episodes: Iterable[Sequence[StateT]]) -> np.ndarray:
    """The picture after the visited states of these episodes, one list per episode."""
    for states in episodes:
        for number, state in enumerate(states):
            sketch.add(state, first=number == 0)
    return sketch.image()


TaskT = TypeVar("TaskT")
"""The family's type of task: a NamedTuple of tensors whose leading dimension is the row."""


Task = Any  # of any family


State = Any  # likewise


Key = Tensor


ADDRESSES = ("train", "test", "ood", "all", "valid")
"""A split's stream of tasks is addressed by its name's place here: new names go to the end, so that no stream moves."""


LISTS = 20190524
"""The address of all fixed lists of tasks: the same for every seed and machine."""


class TaskFamily(ABC, Generic[TaskT, StateT]):
    """A distribution over tasks that share observation space, action space and episode length.

    A subclass sets the attributes below in its constructor and writes `reset`, `observe`, `step`, and where its tasks
    come from: `draw_tasks` for a distribution, or `enumerate_tasks` for a finite set. The methods that return None, and
    a picture (`render`, or `sketch`), are optional. Rows are independent, and all randomness comes from the keys that a
    method is given, one key per row, so that a row of a batch equals a batch of one bit for bit.

    Observations are float32 tensors ``(B, *observation_space.shape)``. Actions are int64 ``(B,)`` for a Discrete
    action space and float32 ``(B, A)`` for a Box (the family clips them itself where its paper does).

    Splits: `train` and `test` share a distribution but no task (finite sets are partitioned); `valid`, for tuning and
    for choosing a checkpoint, is a stream of its own, or a fixed part of a finite `train`; `ood` lies outside what
    training shows; `all` is a finite set that papers train and test on. Other names are a family's own.
    """

    observation_space: gymnasium.spaces.Box
    action_space: gymnasium.spaces.Discrete | gymnasium.spaces.Box
    horizon: int
    """Steps of one episode before it is truncated."""
    episodes_per_trial: int
    """Episodes that an agent has on one task: the papers' K."""
    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "test", "ood")
    train_tasks: int | None = None
    """Train on a fixed, seeded list of so many tasks; None: on all of a finite `train`, or on fresh tasks for ever."""
    test_tasks: int | None = None
    """The same for `test`."""
    terminates: ClassVar[bool] = False
    """Whether an episode can end before `horizon`. If not, `step` returns no row as terminated."""
    noisy: ClassVar[bool] = True
    """Whether `step` draws from its key. If not, it is given a key that is the same at every step, which costs less."""
    random_start: ClassVar[bool] = True
    """Whether `reset` draws from its key. If not, it is given one that is the same in every episode, likewise."""
    shows_task: ClassVar[bool] = False
    """Whether the first observation may tell something of the task, on purpose: a cue, how a stone looks."""

    def sample_tasks(self, key: Key, n: int, split: str = "train", first: int = 0) -> TaskT:
        """`n` tasks of a split: numbers `first` to ``first + n - 1`` of the stream that `key` (a scalar key) names.

        Task i depends on (key, split, i) alone, so every split has a stream of its own and a shard of a meta-batch
        holds the same tasks as the whole. A finite split's tasks are drawn uniformly, with replacement. Every family
        has `valid`: one that does not declare it draws from the training distribution there.
        Raises ValueError for a split that the family does not have.
        """
        keys = rng.fold(rng.fold(key, self._address(split)), torch.arange(first, first + n, device=key.device))
        every = self._finite(split)
        if every is not None:
            return take(to_device(every, key.device), rng.integers(keys, 1, num_rows(every)).squeeze(-1))
        count = self._listed(split)
        if count is not None:
            keys = _list_keys(split, rng.integers(keys, 1, count).squeeze(-1))
        return self.draw_tasks(keys, "train" if split == "valid" else split)

    def tasks_of(self, split: str) -> TaskT | None:
        """Every task of a finite split, each once, on the CPU; None if there is no end of them.

        Raises ValueError for a split that the family does not have.
        """
        self._address(split)
        every = self._finite(split)
        if every is None and (count := self._listed(split)) is not None:
            every = self.draw_tasks(_list_keys(split, torch.arange(count)), split)
        return every

    def num_tasks(self, split: str) -> int | None:
        """How many distinct tasks a split has; None if there is no end of them. Raises ValueError as `tasks_of`."""
        self._address(split)
        every = self._finite(split)
        return self._listed(split) if every is None else num_rows(every)

    def train_on(self, count: int) -> None:
        """Let `train` be a fixed, seeded list of `count` tasks, the same for every run; its first ones stay the first.

        Raises ValueError if `count` is no whole number of at least 1, or a finite `train` has fewer tasks.
        """
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"train_tasks must be a whole number of at least 1, got {count!r}.")
        self.train_tasks = count
        self.num_tasks("train")

    def draw_tasks(self, keys: Key, split: str) -> TaskT:
        """One task per key ``(N,)``. It is not asked for `valid`, which is drawn like `train`; call `sample_tasks`."""
        name = type(self).__name__
        raise NotImplementedError(f"{name} must write draw_tasks(keys, split) or enumerate_tasks(split).")

    def enumerate_tasks(self, split: str) -> TaskT | None:
        """Every task of a finite split, each once and all equally likely, on the CPU; None for a distribution.

        It is not asked for `valid`, which is a part of `train`.
        """
        return None

    def _address(self, split: str) -> int:
        """Where the stream of a split stands. Raises ValueError if there is no such split."""
        if split not in self.splits and not (split == "valid" and "train" in self.splits):
            raise ValueError(unknown("split", split, self.splits, where=f" of {type(self).__name__}"))
        return ADDRESSES.index(split) if split in ADDRESSES else 2**16 + zlib.crc32(split.encode())

    def _listed(self, split: str) -> int | None:
        """The length of the fixed list that stands for a split, if one does."""
        return {"train": self.train_tasks, "test": self.test_tasks}.get(split)

    def _finite(self, split: str) -> TaskT | None:
        """What `enumerate_tasks` gives of the split, or the part of it that is asked for."""
        every = self.enumerate_tasks("train" if split == "valid" else split)
        if every is None:
            return None
        count = num_rows(every)
        # Of two or three tasks no part would say anything: then `valid` is all of them.
        size = (count // 3 if count >= 6 else count) if split == "valid" else self._listed(split)
        if size is None or size == count:
            return every
        if size > count:
            raise ValueError(f"{split}_tasks of {type(self).__name__} must be at most {count}, got {size}.")
        address = rng.fold(rng.key(LISTS), ADDRESSES.index(split))
        return take(every, rng.permutation(address, count)[:size].sort().values)

    @abstractmethod
    def reset(self, task: TaskT, key: Key) -> StateT:
        """The first state of an episode of each row. `key` is ``(B,)``."""

    @abstractmethod
    def observe(self, task: TaskT, state: StateT) -> Tensor:
        """float32 observation ``(B, *observation_space.shape)``. It must not tell which task it is."""

    @abstractmethod
    def step(self, task: TaskT, state: StateT, action: Tensor, key: Key) -> tuple[StateT, Tensor, Tensor]:
        """Next state, reward float32 ``(B,)``, terminated bool ``(B,)``. `key` is ``(B,)``. Must not modify `state`."""

    def oracle(self, task: TaskT) -> Tensor | None:
        """Best known expected return of one episode when the task is told, float32 ``(B,)``; None if unknown."""
        return None

    def random_return(self, task: TaskT) -> Tensor | None:
        """Exact expected return of one episode of the uniformly random policy, float32 ``(B,)``; None if unknown."""
        return None

    def success(self, task: TaskT, state: StateT) -> Tensor | None:
        """Whether the task is solved in the state after a step, bool ``(B,)``; None where there is no such thing."""
        return None

    def check_task(self, task: TaskT) -> None:
        """Raise ValueError, one sentence, for a task that cannot be, such as a goal outside of the grid.

        It is asked of tasks that users give (`metarl.core.checks`), whose types, shapes and finiteness are right.
        """

    def render(self, task: TaskT, states: list[StateT]) -> np.ndarray:
        """A picture of the visited `states` of one row (leading dimension 1): uint8 ``(height, width, 3)``.

        It has the same size for all tasks and numbers of states. Write this, or, so that a picture after every step
        of a long episode is no more work than the last one, `sketch`; then this takes the states as one episode.
        """
        if not has_picture(self):
            raise NotImplementedError(f"{type(self).__name__} has no picture: write its render(task, states).")
        return drawn(self.sketch(task, self.episodes_per_trial), [states])

    def __repr__(self) -> str:
        return made_with(self)

    def sketch(self, task: TaskT, episodes: int = 1) -> Sketch[StateT]:
        """An empty picture of one row, to which visited states are added, of so many `episodes`.

        Its size may depend on the family's options and on `episodes`, but on nothing else.
        """
        return Redrawn(functools.partial(self.render, task))


AnyFamily = TaskFamily[Any, Any]
"""A family in code that knows neither its tasks nor its states."""


def made_with(thing: Any) -> str:
    """An object and the options it was made with, where it keeps them: ``GridNavi(episodes_per_trial=4)``.

    Options are the constructor's parameters but for tensors and devices; None is shown where it is not the default.
    """
    kept, options = vars(thing), []
    for name, default in {**options_of(type(thing)), "train_tasks": None}.items():
        value = kept.get(name)
        long = isinstance(value, (Tensor, torch.device))
        if name in kept and not long and not (value is None and default is None):
            options.append(f"{name}={value!r}")
    return f"{type(thing).__name__}({', '.join(options)})"


def has_picture(family: AnyFamily) -> bool:
    """Whether the family draws itself."""
    return type(family).render is not TaskFamily.render or type(family).sketch is not TaskFamily.sketch


def _list_keys(split: str, numbers: Tensor) -> Key:
    """The keys of the tasks with these numbers in a split's fixed list: the same for every seed and machine."""
    return rng.fold(rng.fold(rng.key(LISTS, numbers.device), ADDRESSES.index(split)), numbers)
