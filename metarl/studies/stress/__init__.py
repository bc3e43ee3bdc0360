"""Stress: what an agent loses under conditions that it was not trained for."""
