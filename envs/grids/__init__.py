"""Grids and mazes."""
