"""The fixture of a pretended GPU."""

from pretended import gpu as gpu
