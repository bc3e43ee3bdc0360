"""Gymnasium ids: every registered family has one with the same name. Registration does not import the family."""

from __future__ import annotations

import gymnasium

from metarl.core.registry import on_register

_SINGLE, _VECTOR = "metarl.interop.gym_env:GymEnv", "metarl.interop.gym_env:GymVectorEnv"


def register_gymnasium() -> None:
    """Register a Gymnasium id for every registered family, and for those registered later.

    Raises ValueError if an id already belongs to another environment.
    """
    on_register(_register)


def _register(id: str) -> None:
    # The entry points are strings and the arguments plain values, so that specs can be copied.
    spec = gymnasium.registry.get(id)
    if spec is None:
        gymnasium.register(id, entry_point=_SINGLE, vector_entry_point=_VECTOR, kwargs={"family": id})
    elif spec.entry_point != _SINGLE:
        raise ValueError(f"The Gymnasium id {id!r} is already taken by {spec.entry_point}.")
