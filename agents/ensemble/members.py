"""Conditions for agents to be members of one ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from metarl.core.agent import LearningAgent
from metarl.core.rollout import Rollout, TrialProtocol


@runtime_checkable
class AdaptsFromOthers(Protocol):
    """An agent, such as `MAML`, that adapts in rounds and can learn from actions that it did not choose itself."""

    def adapt_from_others(self, memory: Any, rollout: Rollout) -> Any:
        """Learn from a round that another policy played, with that policy's ``rollout.acted.log_prob``."""


def shared_protocol(members: Sequence[LearningAgent], weights: str) -> TrialProtocol:
    """Return the members' trial protocol. Raises ValueError for members that cannot be combined."""
    first = members[0]
    protocol = first.protocol.test()
    for member in members:
        if repr(member.family) != repr(first.family):
            raise ValueError(f"The members play different families: {first.family!r} and {member.family!r}.")
        if member.protocol.test() != protocol:
            raise ValueError(f"The members' trials differ: {protocol} and {member.protocol.test()}.")
        if protocol.rounds > 1 and not isinstance(member, AdaptsFromOthers):
            raise ValueError(f"{member.title} adapts in rounds, and only by what it played itself.")
    if protocol.rounds > 1 and weights != "uniform":
        raise ValueError(f"{first.title} adapts in rounds, in which weights stay uniform, got {weights!r}.")
    return protocol
