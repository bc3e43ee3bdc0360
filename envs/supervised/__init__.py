"""Supervised few-shot learning as episodes: the right answer is shown one step later."""
