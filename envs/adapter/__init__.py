"""Families out of simulators: any registered Gymnasium environment, and whatever else steps one row at a time."""
