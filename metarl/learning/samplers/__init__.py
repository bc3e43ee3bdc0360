"""Task samplers (curricula), which choose the tasks to train on; each file follows its paper."""
