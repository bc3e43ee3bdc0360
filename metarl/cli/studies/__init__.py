"""The programs of `metarl.studies`: thin wrappers around its functions."""
