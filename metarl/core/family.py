"""Task families.

A family turns a *task* (data) into the physics of an environment. It is stateless, and every method is batched over
rows: tasks, states and observations are tensors, or NamedTuples of tensors, whose leading dimension is the row. A
single environment is a batch of one row.
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

Task = Any  # a task of any family


State = Any  # a state of any family


class Part(NamedTuple):
    """A part of a structured observation, such as an image or a vector (`TaskFamily.observation_parts`)."""

    name: str
    space: gymnasium.spaces.Box  # the space of the part, before flattening

    @property
    def size(self) -> int:
        """The length of the part in the flat observation."""
        return int(np.prod(self.space.shape))


class TaskFamily(Splits[TaskT], Generic[TaskT, StateT]):
    """A distribution over tasks that share observation space, action space and episode length.

    A subclass sets the attributes below in its constructor and implements `reset`, `observe`, `step`, and a source of
    tasks: `draw_tasks` for a distribution, or `enumerate_tasks` for a finite set. Methods that return None here are
    optional, and so are pictures (`render` or `sketch`). Rows are independent, and all randomness comes from the keys
    that a method receives, one per row, so that a row of a batch equals a batch of one bit for bit.

    Observations are float32 tensors ``(B, *observation_space.shape)``. An observation of shape (height, width,
    channels), at least 7 × 7 with 1 to 16 channels and finite bounds, is an image: RL² reads it with a convolutional
    network. Images of bytes are also float32, with the bounds 0 and 255. An observation of several parts, such as an
    image and a vector, is their flat concatenation, which `observation_parts` describes.

    Actions are int64 ``(B,)`` for a Discrete action space, int64 ``(B, A)`` for a MultiDiscrete one with A components
    (each from its own `start`), and float32 ``(B, A)`` for a Box (which the family itself clips if its paper does).

    Splits: `train` and `test` have the same distribution but no task in common (finite sets are partitioned). `valid`,
    for tuning and for choosing a checkpoint, has other tasks of this distribution, or a fixed part of a finite `train`;
    with ``valid_apart = True`` it has its own distribution. `ood` is outside the training distribution. `all` is a
    finite set on which papers both train and test. A family may have further splits. The methods of
    `metarl.core.tasks.splits.Splits` draw tasks from them.
    """

    observation_space: gymnasium.spaces.Box
    action_space: gymnasium.spaces.Discrete | gymnasium.spaces.MultiDiscrete | gymnasium.spaces.Box
    observation_parts: tuple[Part, ...] | None = None
    """The parts of a flat observation ``(D,)``, in order; D is the sum of their sizes. None: it has a single part."""
    horizon: int
    """Steps of one episode before it is truncated."""
    episodes_per_trial: int
    """Episodes of a trial on one task: K in the papers."""
    terminates: ClassVar[bool] = False
    """True if an episode can end before `horizon`. If False, `step` never returns a row as terminated."""
    noisy: ClassVar[bool] = True
    """True if `step` draws from its key. If False, `step` gets the same key at every step, which is cheaper."""
    random_start: ClassVar[bool] = True
    """True if `reset` draws from its key. If False, `reset` gets the same key in every episode, which is cheaper."""
    counts_success: ClassVar[bool] = False
    """True if evaluations report the fraction of episodes in which `success` was true after some step."""
    shows_task: ClassVar[bool] = False
    """True if the first observation intentionally reveals part of the task, such as a cue or the look of a stone."""
    opaque: ClassVar[bool] = False
    """True if states refer to simulators that move on: a state can be stepped only once and cannot be restored."""
    max_rows: int | None = None
    """Largest number of rows that an evaluation plays at once, for families with expensive rows; None: no limit."""
    action_names: tuple[str, ...] | None = None
    """Names of the actions of a Discrete space, in order, for agents that read and write text; None: numbers."""

    @abstractmethod
    def reset(self, task: TaskT, key: Key) -> StateT:
        """Return the first state of an episode in each row. `key` is ``(B,)``."""

    @abstractmethod
    def observe(self, task: TaskT, state: StateT) -> Tensor:
        """Return the observations, float32 ``(B, *observation_space.shape)``, which must not reveal the task."""

    @abstractmethod
    def step(self, task: TaskT, state: StateT, action: Tensor, key: Key) -> tuple[StateT, Tensor, Tensor]:
        """Return the next state, the reward, float32 ``(B,)``, and terminated, bool ``(B,)``.

        `key` is ``(B,)``. The method must not modify `task` or `state`.
        """

    def restart(self, task: TaskT, state: StateT, key: Key) -> StateT:
        """Return the first state of the next episode in each row; afterwards only the tensors of `state` are read.

        A family with ``opaque = True`` may reuse the same simulators. The default is `reset`.
        """
        return self.reset(task, key)

    def oracle(self, task: TaskT) -> Tensor | None:
        """Return the best known expected return of an episode with a known task, float32 ``(B,)``; None if unknown."""
        return None

    def random_return(self, task: TaskT) -> Tensor | None:
        """Return the exact expected return of an episode of uniformly random actions, float32 ``(B,)``, if known."""
        return None

    def success(self, task: TaskT, state: StateT) -> Tensor | None:
        """Return whether the task of each row is solved after a step, bool ``(B,)``; None if success is undefined."""
        return None

    def target(self, task: TaskT, state: StateT) -> Tensor | None:
        """Return the correct action in a state, for supervised losses; None if the family does not define one.

        Its type and shape are those of an action: int64 ``(B,)``, or float32 ``(B, A)``. An agent receives it only if
        its `TrialProtocol` asks for it.
        """
        return None

    def optimal_action(self, task: TaskT, obs: Tensor) -> Tensor | None:
        """Return an optimal action at observation `obs`, given the task; None if it is not known.

        `obs` is ``(B, *O)``, and the result has the type and shape of an action. It is a label for imitation learning,
        for families whose observation determines the state. Ties are always broken in the same way.
        """
        return None

    def optimal_actions(self, task: TaskT, obs: Tensor) -> Tensor | None:
        """Return the Discrete actions that are optimal at `obs`, bool ``(B, A)``; None: `optimal_action` alone.

        For families in which several actions are often equally good, so that an imitator can draw its labels from them.
        They include `optimal_action`.
        """
        return None

    def observation_text(self, obs: Tensor) -> str | None:
        """Describe one row's observation ``(*O,)`` in words or as a drawing of characters; None: its numbers suffice.

        Agents that read text get it in addition to the numbers.
        """
        return None

    def belief(self, split: str) -> Belief | None:
        """Return exact inference about the task, with the tasks of a split as the prior; None if not computable.

        Raises ValueError for a split that the family does not have.
        """
        self._address(split)
        return None

    def ground(self, split: str) -> Ground | None:
        """Return the ground on which the tasks of a split are places, for pictures of beliefs; None if they are not.

        It is only for families whose observation is the agent's own place.
        """
        return None

    def first_state(self, task: TaskT, obs: Tensor) -> StateT:
        """Return the first state of an episode that begins with `obs` ``(B, *O)``, for beliefs about the task.

        A family implements it if its starts are random but observed; the default is for ``random_start = False``.
        """
        if self.random_start:
            raise NotImplementedError(f"{type(self).__name__} does not implement first_state(task, obs).")
        return self.reset(task, torch.zeros(len(obs), dtype=torch.int64, device=obs.device))

    def check_task(self, task: TaskT) -> None:
        """Raise ValueError for an impossible task, such as a goal outside the grid.

        It is called for tasks that users pass in, after `metarl.core.checks` has checked types, shapes and finiteness.
        """

    def mutate(self, task: TaskT, key: Key) -> TaskT | None:
        """Edit each task slightly, by its key ``(B,)``, for curricula; None if the family does not support it.

        The edited tasks must be possible tasks of the training split.
        """
        return None

    @property
    def task_space(self) -> Mapping[str, gymnasium.Space[Any]]:
        """The spaces of a task's fields, by name and for one row, for curricula that generate tasks.

        Each field has a Discrete, MultiDiscrete or bounded Box space of its own shape, which contains its values in the
        training split; fields that are left out cannot be generated. The fields of a task from this space may
        contradict each other (`reconcile`).
        """
        return {}

    def reconcile(self, task: TaskT) -> TaskT:
        """Resolve contradictions between the fields of generated tasks, such as a goal inside a wall.

        `check_task` may still reject the result. By default fields are independent and tasks do not change.
        """
        return task

    def render(self, task: TaskT, states: list[StateT]) -> np.ndarray:
        """Draw the visited `states` of one row (leading dimension 1): uint8 ``(height, width, 3)``.

        The size is the same for all tasks and numbers of states. A family implements this method or `sketch`. With
        `sketch`, a picture after each step of a long episode takes constant time, and this method draws the states as
        one episode. Raises NotImplementedError if the family has no pictures.
        """
        if not has_picture(self):
            raise NotImplementedError(f"{type(self).__name__} has no picture: {self.no_picture}")
        return drawn(self.sketch(task, self.episodes_per_trial), [states])

    @property
    def no_picture(self) -> str:
        """Advice for a family without pictures, as the end of a sentence; empty if the family draws pictures."""
        written = type(self).render is not TaskFamily.render or type(self).sketch is not TaskFamily.sketch
        return "" if written else "implement render(task, states)."

    def drawable(self) -> Self:
        """Return a family with the same tasks and episodes whose states can be drawn; by default this one.

        States of a family with ``opaque = True`` can be drawn if they contain a picture, which takes time at each step.
        """
        return self

    def __repr__(self) -> str:
        return made_with(self)

    def sketch(self, task: TaskT, episodes: int = 1) -> Sketch[StateT]:
        """Return an empty picture of one row, to which the visited states of `episodes` episodes are added.

        Its size may depend only on the family's options and on `episodes`.
        """
        return Redrawn(functools.partial(self.render, task))


AnyFamily = TaskFamily[Any, Any]
"""The type of a family in code that works with any type of task and state."""


def made_with(thing: Any) -> str:
    """Describe an object with the options that it stores as attributes: ``GridNavi(episodes_per_trial=4)``.

    Options are the constructor's parameters, without tensors and devices. None is shown only if it is not the default.
    An option with the name of a method is stored as ``<name>_given``.
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
    """Return True if the family draws pictures."""
    return not family.no_picture


def has_target(family: AnyFamily) -> bool:
    """Return True if the family defines correct actions, for supervised losses."""
    return type(family).target is not TaskFamily.target
