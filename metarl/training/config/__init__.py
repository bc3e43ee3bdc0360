"""Configurations: files, command lines, names, and error messages."""
