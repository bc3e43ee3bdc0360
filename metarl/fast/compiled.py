"""Steps compiled to C++ by `torch.compile`, for families whose steps are many small operations.

For some thousand rows, torch's cost per operation dominates a step. Compiled, a step's physics, endings, resets and
draws are a few loops over the rows. The first call for a number of rows takes seconds and needs a C++ compiler. Without
one, or for a family that cannot be compiled, steps are those of `BatchEnv`.
"""

from __future__ import annotations

import functools
import types
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.batch_env import Outcome, Step
from metarl.core.family import Key, State, Task, TaskFamily
from metarl.core.faults.given import check_actions
from metarl.core.tree import where
from metarl.fast.stepping import FastEnv

# Leave vectorisation to the C++ compiler: with Inductor's own vectors, bool masks take twice the time.
OPTIONS: dict[str, Any] = {"cpp.simdlen": 1}


class CompiledEnv(FastEnv):
    """A `BatchEnv` whose steps are compiled: the same trials up to rounding, without gradients.

    The program has no branches by row: every step at which an episode may end computes a first state for all rows.
    `play` takes `together` steps by one call, which share its cost; more steps take longer to compile. `why_not` is
    None while steps are compiled; otherwise the reason why they are those of `BatchEnv`. A family is compiled once for
    each number of rows. Raises ValueError for `together` below 1.
    """

    def __init__(
        self,
        family: TaskFamily,
        task: Task,
        key: Key,
        episodes: int | None = None,
        first_row: int = 0,
        together: int = 10,
    ) -> None:
        super().__init__(family, task, key, episodes, first_row)
        if together < 1:
            raise ValueError(f"together must be at least 1, got {together}.")
        self.together = together
        self._program = program(family)

    @property
    def why_not(self) -> str | None:
        """The reason why steps are not compiled, known after the first step; None if they are."""
        return self._program.why_not

    def reset(self) -> Step:
        step = super().reset()
        self._due = 0  # the due times of rows are not tracked
        return step

    def step(self, action: Tensor) -> tuple[Outcome, Step]:
        check_actions(self.family.action_space, action, self.num_envs)
        return self._play(action[None])[0]

    def play(self, actions: Tensor) -> list[tuple[Outcome, Step]]:
        """Take T steps with the actions ``(T, B, …)``; return the results of `step`."""
        if len(actions):
            check_actions(self.family.action_space, actions[0], self.num_envs)
        results: list[tuple[Outcome, Step]] = []
        whole = len(actions) - len(actions) % self.together
        for start in range(0, whole, self.together):
            results += self._play(actions[start : start + self.together])
        return results + [self.step(action) for action in actions[whole:]]

    def _play(self, actions: Tensor) -> list[tuple[Outcome, Step]]:
        found = self._program(self, actions)
        if found is None:
            return [super(CompiledEnv, self).step(action) for action in actions.unbind()]
        (self.state, self.final_state, self._began, self.episode), seen = found
        self._step += len(actions)
        results = []
        for action, (reward, terminated, truncated, final_obs, obs, done) in zip(actions.unbind(), seen, strict=True):
            outcome = Outcome(reward, terminated, truncated, final_obs)
            results.append((outcome, Step(obs, action, reward, done)))
        return results


class Program:
    """The compiled steps of a family; `why_not` is the reason if there are none, once that is known."""

    def __init__(self, family: TaskFamily) -> None:
        self.why_not: str | None = None
        self._seen: set[tuple[Any, ...]] = set()
        self._steps = torch.compile(own(steps_of(family)), fullgraph=True, dynamic=False, options=OPTIONS)

    def __call__(self, env: FastEnv, actions: Tensor) -> Any:
        """Return the states after the steps and the results of each; None if compilation failed."""
        if self.why_not is not None:
            return None
        now, horizon = env._step, env.family.horizon
        ends = not env._lockstep or now % horizon + len(actions) >= horizon
        state, age = (env.state, env._began, env.episode), torch.as_tensor(now - env._start)
        # As a tensor: a Python number would be compiled in as a constant.
        arguments = (env.task, state, actions, torch.tensor(now), age, env._reset_keys, env._step_keys, ends)
        signature = (env.num_envs, len(actions), ends, age.ndim)
        with torch.no_grad():
            if signature in self._seen:
                return self._steps(*arguments)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # the compiler's own
                    result = self._steps(*arguments)
            except Exception as error:  # a compiler may raise any exception
                self.why_not = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
                return None
        if not is_whole(result):
            self.why_not = "the compiler lost fields of a NamedTuple"
            return None
        self._seen.add(signature)
        return result


@functools.lru_cache(maxsize=64)
def program(family: TaskFamily) -> Program:
    """Return the program of a family, which all its environments share."""
    return Program(family)


def steps_of(family: TaskFamily) -> Callable[..., Any]:
    """Return a function of tensors that does `BatchEnv.step` for several actions, without reading any value."""

    def steps(
        task: Task,
        start: tuple[State, Tensor, Tensor],
        actions: Tensor,
        now: Tensor,
        age: Tensor,
        reset_keys: Key,
        step_keys: Key,
        ends: bool,
    ) -> Any:
        state, began, episode = start
        seen = []
        for t, action in enumerate(actions.unbind()):
            key = rng.fold(step_keys, age + t) if family.noisy else step_keys
            state, reward, terminated = family.step(task, state, action, key)
            final_state, final_obs = state, family.observe(task, state)
            truncated, done, obs = torch.zeros_like(terminated), terminated, final_obs
            if ends:
                late = began <= now + (t + 1 - family.horizon)
                truncated, done = (late & ~terminated, late | terminated) if family.terminates else (late, late)
                episode, began = episode + done, torch.where(done, now + (t + 1), began)
                keys = rng.fold(reset_keys, episode) if family.random_start else reset_keys
                state = where(done, family.reset(task, keys), state)
                obs = family.observe(task, state)
            seen.append((reward, terminated, truncated, final_obs, obs, done.to(torch.float32)))
        return (state, final_state, began, episode), seen

    return steps


def is_whole(value: Any) -> bool:
    """Return whether all NamedTuples in a result kept their fields; torch 2.11 loses those of ``_replace``."""
    if not isinstance(value, (tuple, list)):
        return True
    return len(value) == len(getattr(value, "_fields", value)) and all(map(is_whole, value))


def own(function: Any) -> Callable[..., Any]:
    """Copy `function` with a code object of its own, since torch compiles one code object only a few times."""
    code = function.__code__.replace()
    return types.FunctionType(code, function.__globals__, function.__name__, None, function.__closure__)
