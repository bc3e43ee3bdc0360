"""Tuning of hyper-parameters: a search space, what a trial of it is worth, and the study that searches."""
