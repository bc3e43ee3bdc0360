"""The programs: ``metarl train``, ``evaluate``, ``compare``, ``envs`` and ``watch``, thin shells over functions."""
