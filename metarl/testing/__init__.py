"""The contracts of families and agents as functions, for the tests of this and other projects."""

from metarl.testing.agents import check_agent
from metarl.testing.families import check_family, quick_check

__all__ = ["check_agent", "check_family", "quick_check"]
