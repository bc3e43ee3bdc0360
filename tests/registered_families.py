"""The ids of metarl's own families, for tests of every one; Meta-World's are tested in an environment of their own."""

from metarl.core.registry import registered
from metarl.envs import META_WORLD

ELSEWHERE = {f"metarl/{name}-v0" for name in META_WORLD}
"""Families whose simulator another environment has: ``make test-metaworld``."""
PRESETS_ELSEWHERE = ("rl2_ml1_reach",)
"""The presets of those families."""
IDS = [id for id in registered() if id.startswith("metarl/") and id not in ELSEWHERE]
