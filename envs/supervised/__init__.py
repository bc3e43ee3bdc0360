"""Supervised few-shot learning as episodes: the right answer is observed one step later."""
