"""Configurations: files, command lines, names, and sentences about mistakes in them."""
