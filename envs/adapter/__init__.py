"""Families around simulators: any registered Gymnasium environment, and others that step one row at a time."""
