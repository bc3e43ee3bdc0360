"""Exact beliefs about the tasks of robots, which only rewards tell."""
