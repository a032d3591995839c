"""Density models."""
