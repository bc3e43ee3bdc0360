"""A training run: its loop, configuration, folder, checkpoints, log and seeds."""
