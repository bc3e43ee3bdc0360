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
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import metarl.envs  # noqa: F401  (registers the families that come with the package)
from metarl.gym_ids import register_gymnasium
from metarl.registry import make, register, registered

if TYPE_CHECKING:
    from metarl.agent import LearningAgent
    from metarl.agent_registry import register_agent
    from metarl.curve import AdaptationCurve
    from metarl.evaluator import evaluate
    from metarl.family import TaskFamily
    from metarl.family_extras import register_baseline
    from metarl.loop import Run
    from metarl.player import Player
    from metarl.runs import run

__all__ = ["registered", "make", "register", "register_agent", "register_baseline", "load", "evaluate", "run", "Run"]
__all__ += ["Player", "AdaptationCurve", "TaskFamily", "__version__"]

_LAZY = {
    "AdaptationCurve": "metarl.curve",
    "Player": "metarl.player",
    "Run": "metarl.loop",
    "TaskFamily": "metarl.family",
    "evaluate": "metarl.evaluator",
    "register_agent": "metarl.agent_registry",
    "register_baseline": "metarl.family_extras",
    "run": "metarl.runs",
}
"""Public names that need torch, and where they stand."""

try:
    __version__ = importlib.metadata.version("metarl")
except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+checkout"

register_gymnasium()


def load(
    run_dir_or_name: str | Path, device: str = "cpu", which: str = "last", allow: Sequence[str] = ()
) -> LearningAgent:
    """A trained agent: of a run directory, or one that comes with the package (``"pretrained:rl2_gridnavi"``).

    `which` is "last", the agent as training left it, or "best", as it was when it scored best on `valid`.
    Its configuration is `agent.config`, the task family it was trained on `agent.family`. A run directory is data:
    nothing is imported for it but the packages in `allow`, which register another project's families and agents.
    Raises ValueError, one sentence, if there is no such agent or it cannot be read.
    """
    from metarl import checkpoint

    return checkpoint.load(run_dir_or_name, device, which, allow)


def __getattr__(name: str) -> Any:
    """A public name that is imported when it is first used: Gymnasium's ids and a usage page do without torch."""
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'metarl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
