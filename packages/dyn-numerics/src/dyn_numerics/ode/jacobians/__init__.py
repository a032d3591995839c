"""Jacobians of vector fields, and linear systems with them."""
