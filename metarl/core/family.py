"""Task families.

A family turns a *task* (data) into the physics of an environment. It is stateless, and every method is batched over
rows: tasks, states and observations are NamedTuples or tensors whose leading dimension is the row. A single environment
is a batch of one row.
"""

from __future__ import annotations

import functools
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.beliefs.belief import Belief
from metarl.core.beliefs.places import Ground
from metarl.core.errors import WrongResult, add_place, short, unknown
from metarl.core.options import options_of
from metarl.core.tree import named_leaves, num_rows, take, to_device

StateT = TypeVar("StateT")
"""A family's type of state: a tensor, or a NamedTuple of them, whose leading dimension is the row."""


class Sketch(ABC, Generic[StateT]):
    """A picture of one row's trial that grows state by state.

    The time of `add` and `image` does not depend on how many states were added before. That holds on average: a sketch
    may redraw everything from time to time, for example at half the size when its content has become twice as large.
    """

    @abstractmethod
    def add(self, state: StateT, first: bool = False) -> None:
        """Draw one more visited state (leading dimension 1); `first` where an episode begins with it."""

    @abstractmethod
    def image(self) -> np.ndarray:
        """Return the picture so far: uint8 ``(height, width, 3)``, of the same size at every call."""


class Redrawn(Sketch[StateT]):
    """A sketch that draws all visited states anew at every call: ``render(states)``."""

    def __init__(self, render: Callable[[list[StateT]], np.ndarray]) -> None:
        self.render = render
        self.states: list[StateT] = []

    def add(self, state: StateT, first: bool = False) -> None:
        self.states.append(state)

    def image(self) -> np.ndarray:
        return np.array(self.render(self.states))


def drawn(sketch: Sketch[StateT], episodes: Iterable[Sequence[StateT]]) -> np.ndarray:
    """Return the sketch's picture after the visited states of these episodes, one list per episode."""
    for states in episodes:
        for number, state in enumerate(states):
            sketch.add(state, first=number == 0)
    return sketch.image()


TaskT = TypeVar("TaskT")
"""The family's type of task: a NamedTuple of tensors whose leading dimension is the row."""


Task = Any  # of any family


State = Any  # likewise


Key = Tensor


class Part(NamedTuple):
    """A part of a structured observation, such as an image next to a vector (`TaskFamily.observation_parts`)."""

    name: str
    space: gymnasium.spaces.Box  # of the part, before it is flattened

    @property
    def size(self) -> int:
        """The numbers of the part in the flat observation."""
        return int(np.prod(self.space.shape))


ADDRESSES = ("train", "test", "ood", "all", "valid")
"""The index of a name is the address of the split's tasks. Add new names at the end, so that no address changes."""


LISTS = 20190524
"""The address of all fixed lists of tasks: the same for every seed and machine."""


class TaskFamily(ABC, Generic[TaskT, StateT]):
    """A distribution over tasks that share observation space, action space and episode length.

    A subclass sets the attributes below in its constructor and writes `reset`, `observe`, `step`, and the source of its
    tasks: `draw_tasks` for a distribution, or `enumerate_tasks` for a finite set. Methods that return None here are
    optional, and so is a picture (`render` or `sketch`). Rows are independent, and all randomness comes from the keys
    that a method is given, one key per row, so that a row of a batch equals a batch of one bit for bit.

    Observations are float32 tensors ``(B, *observation_space.shape)``. One whose shape is (height, width, channels), at
    least 7 × 7 with 1 to 16 channels and finite bounds, is an image: RL² reads it with a convolutional network. An
    image of bytes is float32, too, with the bounds 0 and 255. An observation of several parts, such as an image and a
    vector, is their flat concatenation, and `observation_parts` says what the parts are.

    Actions are int64 ``(B,)`` for a Discrete action space, int64 ``(B, A)`` for a MultiDiscrete one of A components
    (each from its own `start`), and float32 ``(B, A)`` for a Box (the family clips them itself where its paper does).

    Splits: `train` and `test` have the same distribution but no task in common (finite sets are partitioned). `valid`,
    for tuning and for choosing a checkpoint, has other tasks of this distribution, or a fixed part of a finite `train`;
    with ``valid_apart = True`` it is a distribution of its own.
    `ood` lies outside the training distribution. `all` is a finite set that papers both train and test on. A family may
    have further splits.
    """

    observation_space: gymnasium.spaces.Box
    action_space: gymnasium.spaces.Discrete | gymnasium.spaces.MultiDiscrete | gymnasium.spaces.Box
    observation_parts: tuple[Part, ...] | None = None
    """The parts of a flat observation ``(D,)``, in their order; D is the sum of their sizes. None: it is one part."""
    horizon: int
    """Steps of one episode before it is truncated."""
    episodes_per_trial: int
    """Episodes of a trial on one task: the papers' K."""
    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "test", "ood")
    train_tasks: int | None = None
    """Size of a fixed, seeded list of training tasks; None: all of a finite `train`, or always fresh tasks."""
    test_tasks: int | None = None
    """Size of a fixed, seeded list of test tasks; None: as for `train_tasks`."""
    fold: tuple[int, int] | None = None
    """Part of the tasks, and number of parts, that `hold_out` keeps for `test`; None: the family's own splits."""
    terminates: ClassVar[bool] = False
    """True if an episode can end before `horizon`. If False, `step` never returns a row as terminated."""
    noisy: ClassVar[bool] = True
    """True if `step` draws from its key. If False, `step` gets the same key at every step, which costs less."""
    random_start: ClassVar[bool] = True
    """True if `reset` draws from its key. If False, `reset` gets the same key in every episode, which costs less."""
    counts_success: ClassVar[bool] = False
    """True if evaluations report in which share of the episodes `success` was true after some step."""
    shows_task: ClassVar[bool] = False
    """True if the first observation shows something of the task on purpose, such as a cue or the look of a stone."""
    opaque: ClassVar[bool] = False
    """True if a state names a simulator that moves on: it can be stepped once, and nothing goes back to it."""
    max_rows: int | None = None
    """Rows at most that an evaluation plays at once, for families whose rows are costly to hold; None: no limit."""
    valid_apart: ClassVar[bool] = False
    """True if `draw_tasks` and `enumerate_tasks` know the split `valid`, which has other tasks than `train`."""

    def sample_tasks(self, key: Key, n: int, split: str = "train", first: int = 0) -> TaskT:
        """Draw `n` tasks of a split: numbers `first` to ``first + n - 1`` of the sequence that `key`, a scalar, names.

        Task i depends only on (key, split, i): every split has its own sequence, and a shard of a meta-batch holds the
        same tasks as the whole. Tasks of a finite split are drawn uniformly, with replacement. Every family has the
        split `valid`; if it is not declared, its tasks follow the training distribution.

        Raises ValueError for a split that the family does not have.
        """
        return self.numbered_tasks(key, torch.arange(first, first + n, device=key.device), split)

    def numbered_tasks(self, key: Key, numbers: Tensor, split: str = "train") -> TaskT:
        """Draw the tasks that have these numbers, int64 ``(N,)``, in the sequence of `sample_tasks`.

        Raises ValueError for a split that the family does not have.
        """
        keys = rng.fold(rng.fold(key, self._address(split)), numbers)
        every = self._finite(split)
        if every is not None:
            return take(to_device(every, key.device), rng.integers(keys, 1, num_rows(every)).squeeze(-1))
        count = self._listed(split)
        if count is not None:
            keys = _list_keys(split, rng.integers(keys, 1, count).squeeze(-1))
        return self._drawn(keys, "train" if split == "valid" and not self.valid_apart else split)

    def _drawn(self, keys: Key, split: str) -> TaskT:
        """Draw tasks. Raises WrongResult unless there is one for each key, of float32 or whole numbers."""
        name = f"{type(self).__name__}.draw_tasks"
        try:
            drawn = self.draw_tasks(keys, split)
        except Exception as error:  # a family's code may raise anything
            add_place(error, f"{name} of the split {split!r}")
            raise
        if not isinstance(drawn, tuple) or not hasattr(drawn, "_fields"):
            raise WrongResult(f"{name} must return a NamedTuple of tensors, got {type(drawn).__name__}.")
        rows, on = len(keys), keys.device
        for field, leaf in named_leaves(drawn).items():
            right = isinstance(leaf, Tensor) and leaf.ndim and leaf.shape[0] == rows and leaf.device == on
            if not right or leaf.dtype is torch.float64:
                got = f"{leaf.dtype} {tuple(leaf.shape)}, {leaf.device}" if isinstance(leaf, Tensor) else type(leaf)
                raise WrongResult(
                    f"{name} must return one row for each of {len(keys)} keys, as tensors on {keys.device} that are "
                    f"not float64, got for {field}: {got}."
                )
        return drawn

    def tasks_of(self, split: str) -> TaskT | None:
        """Return every task of a finite split, each once, on the CPU; None for an infinite split.

        Raises ValueError for a split that the family does not have.
        """
        self._address(split)
        every = self._finite(split)
        if every is None and (count := self._listed(split)) is not None:
            every = self.draw_tasks(_list_keys(split, torch.arange(count)), split)
        return every

    def num_tasks(self, split: str) -> int | None:
        """Return how many tasks a split has; None for an infinite split. Raises ValueError as `tasks_of` does."""
        self._address(split)
        every = self._finite(split)
        return self._listed(split) if every is None else num_rows(every)

    def train_on(self, count: int) -> None:
        """Make `train` a fixed, seeded list of `count` tasks, the same in every run; a longer list starts with them.

        Raises ValueError if `count` is not an int of at least 1, or a finite `train` has fewer tasks.
        """
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"train_tasks must be a whole number of at least 1, got {short(count)}.")
        self.train_tasks = count
        self.num_tasks("train")

    def hold_out(self, part: int, parts: int) -> None:
        """Make `test` one of `parts` equal parts of a finite family's tasks, 1 to `parts`, and `train` all others.

        The tasks are those of `all`, or of `train` for a family without such a split; parts are the same in every run.
        `valid` is a part of the new `train`. Raises ValueError for a family with endlessly many tasks, or fewer than
        `parts`, and for a part that there is not.
        """
        name, every = type(self).__name__, self.enumerate_tasks(self._whole)
        if every is None:
            raise ValueError(f"{name} has endlessly many tasks, so none needs to be left out: its `test` has others.")
        if self.train_tasks is not None:
            raise ValueError("A fold needs all training tasks: leave out train_tasks.")
        if not 2 <= parts <= num_rows(every) or not 1 <= part <= parts:
            raise ValueError(
                f"A fold must be one of 2 to {num_rows(every)} parts of {name}'s tasks, such as 1/2, "
                f"got {part}/{parts}."
            )
        self.fold = part, parts
        if "test" not in self.splits:
            self.splits = (*self.splits, "test")  # type: ignore[misc]

    @property
    def _whole(self) -> str:
        """The split whose tasks `hold_out` divides."""
        return "all" if "all" in self.splits else "train"

    def _enumerated(self, split: str) -> TaskT | None:
        """Return every task of a split that is not a part of another: that of the fold, if there is one."""
        if self.fold is None or split not in ("train", "test"):
            return self.enumerate_tasks(split)
        every, (part, parts) = self.enumerate_tasks(self._whole), self.fold
        assert every is not None, "hold_out has seen to it"
        order = rng.permutation(rng.fold(rng.key(LISTS), len(ADDRESSES)), num_rows(every))
        held_out = torch.zeros(num_rows(every), dtype=torch.bool)
        held_out[order.tensor_split(parts)[part - 1]] = True
        return take(every, torch.nonzero(held_out if split == "test" else ~held_out).squeeze(-1))

    def draw_tasks(self, keys: Key, split: str) -> TaskT:
        """Draw one task per key ``(N,)``; called by `sample_tasks`, for `valid` with `train` unless `valid_apart`."""
        name = type(self).__name__
        raise NotImplementedError(f"{name} must write draw_tasks(keys, split) or enumerate_tasks(split).")

    def enumerate_tasks(self, split: str) -> TaskT | None:
        """Return every task of a finite split, each once and all equally likely, on the CPU; None for a distribution.

        It is never called for `valid`, which is a part of `train`, unless `valid_apart`.
        """
        return None

    def _address(self, split: str) -> int:
        """Return the address of a split's tasks. Raises ValueError if there is no such split."""
        if split not in self.splits and not (split == "valid" and "train" in self.splits):
            raise ValueError(unknown("split", split, self.splits, where=f" of {type(self).__name__}"))
        return ADDRESSES.index(split) if split in ADDRESSES else 2**16 + zlib.crc32(split.encode())

    def _listed(self, split: str) -> int | None:
        """Return the length of a split's fixed list of tasks; None if it has none."""
        return {"train": self.train_tasks, "test": self.test_tasks}.get(split)

    def _finite(self, split: str) -> TaskT | None:
        """Return all tasks of a finite split, or the part of it that its list or `valid` holds; None if infinite."""
        part = split == "valid" and not self.valid_apart
        every = self._enumerated("train" if part else split)
        if every is None:
            return None
        count = num_rows(every)
        # A part of fewer than six tasks would be too small to choose a checkpoint by: `valid` is then all of them.
        size = (count // 3 if count >= 6 else count) if part else self._listed(split)
        if size is None or size == count:
            return every
        if size > count:
            raise ValueError(f"{split}_tasks of {type(self).__name__} must be at most {count}, got {size}.")
        address = rng.fold(rng.key(LISTS), ADDRESSES.index(split))
        return take(every, rng.permutation(address, count)[:size].sort().values)

    @abstractmethod
    def reset(self, task: TaskT, key: Key) -> StateT:
        """Return the first state of an episode of each row. `key` is ``(B,)``."""

    @abstractmethod
    def observe(self, task: TaskT, state: StateT) -> Tensor:
        """Return the observations, float32 ``(B, *observation_space.shape)``, which must not reveal the task."""

    @abstractmethod
    def step(self, task: TaskT, state: StateT, action: Tensor, key: Key) -> tuple[StateT, Tensor, Tensor]:
        """Return the next state, the reward, float32 ``(B,)``, and terminated, bool ``(B,)``.

        `key` is ``(B,)``. It must not modify `task` or `state`.
        """

    def restart(self, task: TaskT, state: StateT, key: Key) -> StateT:
        """Return the first state of the next episode of each row; nothing but its tensors is read of `state` again.

        A family with ``opaque = True`` may go on in the same simulators. The default is `reset`.
        """
        return self.reset(task, key)

    def oracle(self, task: TaskT) -> Tensor | None:
        """Return the best known expected return of an episode with a known task, float32 ``(B,)``; None if unknown."""
        return None

    def random_return(self, task: TaskT) -> Tensor | None:
        """Return the exact expected return of an episode of uniformly random actions, float32 ``(B,)``, if known."""
        return None

    def success(self, task: TaskT, state: StateT) -> Tensor | None:
        """Tell in which rows the task is solved after a step, bool ``(B,)``; None if the family has no success."""
        return None

    def target(self, task: TaskT, state: StateT) -> Tensor | None:
        """Return the right action in a state, as a supervised loss needs it; None if the family has no such action.

        It is like an action: int64 ``(B,)``, or float32 ``(B, A)``. An agent sees it only where its `TrialProtocol`
        asks for it.
        """
        return None

    def optimal_action(self, task: TaskT, obs: Tensor) -> Tensor | None:
        """Return an action that is best for who is told the task, where `obs` is seen; None if that is not known.

        `obs` is ``(B, *O)``, and the result like an action. It is a label for agents that learn by imitation, and
        needs a family whose observation says where the agent is. Of several best actions it is always the same one.
        """
        return None

    def belief(self, split: str) -> Belief | None:
        """Return exact inference about the task, with a split's tasks as the prior; None if it cannot be computed.

        Raises ValueError for a split that the family does not have.
        """
        self._address(split)
        return None

    def ground(self, split: str) -> Ground | None:
        """Return the ground on which the tasks of a split are places, for pictures of beliefs; None if they are not.

        Only for families whose observation is the agent's own place.
        """
        return None

    def first_state(self, task: TaskT, obs: Tensor) -> StateT:
        """Return the first state of an episode that shows `obs` ``(B, *O)``, for beliefs about the task.

        A family writes it if its starts are random but seen; the default is for those with ``random_start = False``.
        """
        if self.random_start:
            raise NotImplementedError(f"{type(self).__name__} does not write first_state(task, obs).")
        return self.reset(task, torch.zeros(len(obs), dtype=torch.int64, device=obs.device))

    def check_task(self, task: TaskT) -> None:
        """Raise ValueError, one sentence, for an impossible task, such as a goal outside the grid.

        It is called for tasks that users give, after `metarl.core.checks` has checked types, shapes and finiteness.
        """

    def mutate(self, task: TaskT, key: Key) -> TaskT | None:
        """Change each task a little with its key ``(B,)``, for curricula that edit tasks; None if the family does not.

        A changed task has to be one that the training split could hold.
        """
        return None

    def render(self, task: TaskT, states: list[StateT]) -> np.ndarray:
        """Draw the visited `states` of one row (leading dimension 1): uint8 ``(height, width, 3)``.

        The size is the same for all tasks and numbers of states. A family writes this method or `sketch`. With `sketch`
        a picture after every step of a long episode takes constant time; this method then draws the states as one
        episode. Raises NotImplementedError if the family has no picture.
        """
        if not has_picture(self):
            raise NotImplementedError(f"{type(self).__name__} has no picture: {self.no_picture}")
        return drawn(self.sketch(task, self.episodes_per_trial), [states])

    @property
    def no_picture(self) -> str:
        """The advice about a family without pictures, as the end of a sentence; empty if it draws pictures."""
        written = type(self).render is not TaskFamily.render or type(self).sketch is not TaskFamily.sketch
        return "" if written else "write its render(task, states)."

    def drawable(self) -> Self:
        """Return a family of the same tasks and episodes whose states can be drawn: this one, unless it says otherwise.

        States of a family with ``opaque = True`` can be drawn if they hold a picture, which takes time at every step.
        """
        return self

    def __repr__(self) -> str:
        return made_with(self)

    def sketch(self, task: TaskT, episodes: int = 1) -> Sketch[StateT]:
        """Return an empty picture of one row, for the visited states of this many `episodes`.

        Its size may depend only on the family's options and on `episodes`.
        """
        return Redrawn(functools.partial(self.render, task))


AnyFamily = TaskFamily[Any, Any]
"""A family in code that works with any type of task and state."""


def made_with(thing: Any) -> str:
    """Describe an object and the options that it keeps as attributes: ``GridNavi(episodes_per_trial=4)``.

    Options are the constructor's parameters, without tensors and devices. None is shown only if it is not the default.
    An option that has the name of a method is kept as ``<name>_given``.
    """
    kept, options = vars(thing), []
    for name, default in {**options_of(type(thing)), "train_tasks": None}.items():
        place = f"{name}_given" if f"{name}_given" in kept else name
        value = kept.get(place)
        long = isinstance(value, (Tensor, torch.device))
        if place in kept and not long and not (value is None and default is None):
            options.append(f"{name}={value!r}")
    return f"{type(thing).__name__}({', '.join(options)})"


def has_picture(family: AnyFamily) -> bool:
    """Tell whether the family draws pictures."""
    return not family.no_picture


def has_target(family: AnyFamily) -> bool:
    """Tell whether the family has right actions, for supervised losses."""
    return type(family).target is not TaskFamily.target


def _list_keys(split: str, numbers: Tensor) -> Key:
    """Return the keys of the tasks with these numbers in a split's fixed list, the same for every seed and machine."""
    return rng.fold(rng.fold(rng.key(LISTS, numbers.device), ADDRESSES.index(split)), numbers)
