"""All that is worth knowing about metarl on a GPU, in one command: ``python -m benchmarks.gpu``."""
