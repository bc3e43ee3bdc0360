"""Task families.

A family turns a *task* (data) into the physics of an environment. It is stateless, and every method is batched over
rows: tasks, states and observations are NamedTuples or tensors whose leading dimension is the row. A single environment
is a batch of one row.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, NamedTuple, Self

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl.core.beliefs.belief import Belief
from metarl.core.beliefs.places import Ground
from metarl.core.options import options_of
from metarl.core.tasks.sketch import Redrawn, Sketch, StateT, drawn
from metarl.core.tasks.splits import Key, Splits, TaskT

__all__ = ["AnyFamily", "Key", "Part", "Redrawn", "Sketch", "State", "StateT", "Task"]
__all__ += ["TaskFamily", "TaskT", "drawn", "has_picture", "has_target", "made_with"]

Task = Any  # of any family


State = Any  # likewise


class Part(NamedTuple):
    """A part of a structured observation, such as an image next to a vector (`TaskFamily.observation_parts`)."""

    name: str
    space: gymnasium.spaces.Box  # of the part, before it is flattened

    @property
    def size(self) -> int:
        """The numbers of the part in the flat observation."""
        return int(np.prod(self.space.shape))


class TaskFamily(Splits[TaskT], Generic[TaskT, StateT]):
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
    with ``valid_apart = True`` it is a distribution of its own. `ood` lies outside the training distribution. `all` is
    a finite set that papers both train and test on. A family may have further splits. The methods that draw tasks from
    them are those of `metarl.core.tasks.splits.Splits`.
    """

    observation_space: gymnasium.spaces.Box
    action_space: gymnasium.spaces.Discrete | gymnasium.spaces.MultiDiscrete | gymnasium.spaces.Box
    observation_parts: tuple[Part, ...] | None = None
    """The parts of a flat observation ``(D,)``, in their order; D is the sum of their sizes. None: it is one part."""
    horizon: int
    """Steps of one episode before it is truncated."""
    episodes_per_trial: int
    """Episodes of a trial on one task: the papers' K."""
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
    action_names: tuple[str, ...] | None = None
    """Names of the actions of a Discrete space, in their order, for players that read and write text; None: numbers."""

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

    def observation_text(self, obs: Tensor) -> str | None:
        """Return what one row's observation ``(*O,)`` shows, in words or drawn in letters; None: its numbers say it.

        It is for players that read text, next to the numbers.
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

    @property
    def task_space(self) -> Mapping[str, gymnasium.Space[Any]]:
        """The spaces of a task's fields by their names, of one row, for curricula that make tasks of their own.

        A field has a Discrete, MultiDiscrete or bounded Box space of its own shape, which holds what it is in the
        training split; fields that the family leaves out cannot be made. The fields of a task in this space may
        contradict each other (`reconcile`).
        """
        return {}

    def reconcile(self, task: TaskT) -> TaskT:
        """Settle what the fields of tasks in `task_space` contradict each other in, such as a goal inside a wall.

        `check_task` may still refuse the result. By default fields are independent, and the tasks are left as they are.
        """
        return task

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
