"""Gradients of differential equations: one algorithm to a file, and the handler."""
