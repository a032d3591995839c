"""Gradients of roots and fixed points: one algorithm to a file, and the handlers."""
