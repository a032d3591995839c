"""Equations to solve, each in a file, as fields that other libraries understand too."""
