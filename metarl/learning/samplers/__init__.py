"""Task samplers, or curricula: which tasks to train on, each in a file that reads like its paper."""
