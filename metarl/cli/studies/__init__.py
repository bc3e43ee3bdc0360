"""The programs of `metarl.studies`: thin shells over its functions."""
