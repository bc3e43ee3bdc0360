"""The sentence that a constructor's wrong count gets."""

from __future__ import annotations


def whole_number(name: str, value: int, least: int = 1) -> int:
    """`value`. Raises ValueError if it is not an int of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}.")
    return value
