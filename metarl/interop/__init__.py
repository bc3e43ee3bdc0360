"""Views of families for other libraries: Gymnasium, stable-baselines3, plain loops."""
