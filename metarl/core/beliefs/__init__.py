"""Exact inference about the task of a split, from what an agent sees."""
