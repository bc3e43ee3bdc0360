"""Parsers of the studies' programs. This module does not import torch, so that a usage page appears at once."""

from __future__ import annotations

from collections.abc import Callable

from metarl.report.console import Parser

COMMANDS: dict[str, str] = {}
"""The commands, with one line about each; their programs are the modules of this folder with the same names."""
PARSERS: dict[str, Callable[[], Parser]] = {}
"""Their parsers."""
