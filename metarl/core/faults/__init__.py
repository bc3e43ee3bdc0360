"""Checks of what families return and of what users pass in, with one-sentence messages that say what is wrong."""
