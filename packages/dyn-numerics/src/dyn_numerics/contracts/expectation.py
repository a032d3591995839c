"""What a contract says when it is broken."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["expect", "expect_close"]


def expect(holds: object, sentence: str) -> None:
    """Fails a test with a sentence, under `python -O` too.

    Args:
        holds: What should be true.
        sentence: What was found, what was expected and where to look.

    Raises:
        AssertionError: If it does not hold.

    Example:
        >>> expect(False, "order: measured 1.02, expected 2 +- 0.2")
        Traceback (most recent call last):
            ...
        AssertionError: order: measured 1.02, expected 2 +- 0.2
    """
    __tracebackhide__ = True  # pytest shows the line of the contract
    if not holds:
        raise AssertionError(sentence)


def expect_close(found: Tensor, expected: Tensor, atol: float, sentence: str) -> None:
    """Fails a test with a sentence unless two tensors agree in shape, dtype and value.

    Args:
        found: What was computed.
        expected: What it should be.
        atol: Greatest difference of an element; 0 asks for the same bits.
        sentence: What was expected and where to look; the differences follow it.

    Raises:
        AssertionError: If they do not agree.
    """
    __tracebackhide__ = True
    torch.testing.assert_close(found, expected, rtol=0, atol=atol, msg=lambda details: f"{sentence}\n{details}")
