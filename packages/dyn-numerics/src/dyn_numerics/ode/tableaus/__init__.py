"""Runge-Kutta methods as data."""
