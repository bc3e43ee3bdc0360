"""All that is to be known of metarl on a GPU, by one command of a few minutes: ``python -m benchmarks.gpu``."""
