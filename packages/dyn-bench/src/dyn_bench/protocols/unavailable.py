"""What cannot be measured here."""

from __future__ import annotations

__all__ = ["UnavailableError"]


class UnavailableError(RuntimeError):
    """Something that a figure needs is not there; the message says what, and how to get it."""
