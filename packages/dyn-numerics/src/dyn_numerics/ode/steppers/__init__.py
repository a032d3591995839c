"""Engines that take one step, and the named methods."""
