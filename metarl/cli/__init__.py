"""The programs (``metarl train``, ``evaluate``, ``compare``, …): thin wrappers around library functions."""
