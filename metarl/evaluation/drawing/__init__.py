"""Figures of curves, and their colours."""
