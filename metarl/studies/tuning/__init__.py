"""Hyperparameter tuning: a search space, the objective, and the study that searches."""
