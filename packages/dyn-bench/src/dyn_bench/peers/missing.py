"""A peer that is not there."""

from __future__ import annotations

from dyn_bench.protocols.unavailable import UnavailableError

__all__ = ["PeerMissingError"]


class PeerMissingError(UnavailableError):
    """A peer is not installed.

    Args:
        peer: Its name.
    """

    def __init__(self, peer: str) -> None:
        super().__init__(f"{peer} is not installed: pip install 'dyn-bench[peers]'")
