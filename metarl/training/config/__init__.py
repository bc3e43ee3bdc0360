"""Configurations: files, command lines, names and the sentences for what is wrong in them."""
