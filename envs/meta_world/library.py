"""The installed Meta-World: its environments, its benchmarks, and their published goals."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from metarl.core.errors import unknown

MUJOCO = "3.3"
"""The version of MuJoCo that Meta-World 3.1.1 is made for; with 4.0 its physics fail."""


INSTALL = "pip install 'metarl[metaworld]' in a virtual environment of its own, since it needs mujoco 3.3.0"


NUMBERS = 6
"""Numbers of a task's layout: Meta-World's own `rand_vec` has 3 or 6; the rest is 0."""


Names = tuple[str, ...]


class Published(NamedTuple):
    """The tasks of a benchmark: for each, the environment's name and Meta-World's own `rand_vec`, float64."""

    train: tuple[tuple[str, np.ndarray], ...]
    test: tuple[tuple[str, np.ndarray], ...]


@functools.cache
def library() -> Any:
    """Return the package `metaworld`. Raises ValueError if it, or the MuJoCo version that it needs, is missing."""
    try:
        import metaworld
        import mujoco
    except ModuleNotFoundError as error:
        raise ValueError(f"Meta-World needs {error.name!r}, which is not installed: {INSTALL}.") from error
    if not mujoco.__version__.startswith(MUJOCO):
        raise ValueError(f"Meta-World is made for mujoco {MUJOCO}.0, but this is {mujoco.__version__}: {INSTALL}.")
    return metaworld


def environments() -> dict[str, Any]:
    """Return the classes of all 50 environments, by names such as ``reach-v3``."""
    return dict(library().env_dict.ALL_V3_ENVIRONMENTS)


def full_name(env: str) -> str:
    """Return an environment's name: ``reach-v3``, also for ``reach``. Raises ValueError if there is none."""
    known = list(environments())
    found = [name for name in known if env in (name, name.rpartition("-")[0])]
    if not found:
        raise ValueError(unknown("environment of Meta-World", env, known))
    return found[0]


def names(benchmark: str, env: str | None = None) -> tuple[Names, Names]:
    """Return the names of a benchmark's environments for training and for tests; of MT10 the latter are none."""
    if benchmark == "ML1":
        assert env is not None
        return (env,), (env,)
    lists = getattr(library().env_dict, f"{benchmark}_V3")
    if benchmark.startswith("MT"):
        return tuple(lists), ()
    return tuple(lists["train"]), tuple(lists["test"])


@functools.cache
def published(benchmark: str, env: str | None, seed: int) -> Published:
    """Return the tasks of ``metaworld.ML10(seed=seed)`` and so on, in its order; `env` is ML1's environment.

    The first call takes as long as Meta-World takes to build every environment: 1 s for ML1, 5 s for ML10, 20 s for
    ML45.
    """
    made = getattr(library(), benchmark)(*(() if env is None else (env,)), seed=seed)
    return Published(_pairs(made.train_tasks), _pairs(made.test_tasks))


def _pairs(tasks: Sequence[Any]) -> tuple[tuple[str, np.ndarray], ...]:
    return tuple((task.env_name, np.asarray(pickle.loads(task.data)["rand_vec"], np.float64)) for task in tasks)


def padded(vector: np.ndarray) -> np.ndarray:
    """Return a `rand_vec` as a task's layout: float32 ``(6,)``, with zeros after 3 numbers."""
    layout = np.zeros(NUMBERS, np.float32)
    layout[: len(vector)] = vector
    return layout
