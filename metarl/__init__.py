"""Meta-reinforcement learning: task families, batched environments, learning agents, one loop, one evaluator.

>>> import metarl                                             # also registers every Gymnasium id
>>> family = metarl.make("metarl/GridNavi-v0")
>>> agent = metarl.load("pretrained:rl2_gridnavi")            # or a run directory
>>> curve = metarl.evaluate(agent, family, split="test", tasks=1000)
>>> curve.mean()                                              # return per episode on tasks it has never seen
"""

from __future__ import annotations

import importlib
import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import metarl.envs
import metarl.fast  # noqa: F401  (registers the fast twins)
from metarl.family import TaskFamily
from metarl.gym_env import register_gymnasium
from metarl.player import Player
from metarl.registry import make, register, registered

if TYPE_CHECKING:
    from metarl.agent import LearningAgent
    from metarl.curve import AdaptationCurve
    from metarl.evaluator import evaluate
    from metarl.family_extras import register_baseline
    from metarl.loop import Run
    from metarl.runs import run

_LAZY = {
    "evaluate": "metarl.evaluator",
    "AdaptationCurve": "metarl.curve",
    "register_baseline": "metarl.family_extras",
    "run": "metarl.runs",
    "Run": "metarl.loop",
}
"""Public names that need matplotlib or scipy, and where they stand."""

__all__ = ["registered", "make", "register", "load", "evaluate", "run", "Run", "Player"]
__all__ += ["register_baseline"]
__all__ += ["AdaptationCurve", "TaskFamily", "__version__"]

try:
    __version__ = importlib.metadata.version("metarl")
except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+checkout"

register_gymnasium()


def load(run_dir_or_name: str | Path, device: str = "cpu", which: str = "last") -> LearningAgent:
    """A trained agent: of a run directory, or one that comes with the package (``"pretrained:rl2_gridnavi"``).

    `which` is "last", the agent as training left it, or "best", as it was when it scored best on `valid`.
    Its configuration is `agent.config`, the task family it was trained on `agent.family`. Raises ValueError, one
    sentence, if there is no such agent or it cannot be read.
    """
    from metarl import checkpoint

    return checkpoint.load(run_dir_or_name, device, which)


def __getattr__(name: str) -> Any:
    """What needs matplotlib or scipy is imported when it is first used, so that ``import metarl`` is quick."""
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'metarl' has no attribute {name!r}")
