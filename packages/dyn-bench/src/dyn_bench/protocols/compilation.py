"""Whole solves as one program."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import torch

from dyn_bench.protocols.unavailable import UnavailableError
from dyn_numerics.loop import OLDEST_TORCH, is_supported

__all__ = ["compile_whole", "count_compilations", "nothing_compiled"]

WITHOUT_PYTHON: dict[str, Any] = {"cpp_wrapper": True, "cpp_wrapper_build_separate": True}


def compile_whole(function: Callable[..., Any], in_python: bool = False) -> Callable[..., Any]:
    """Compiles a function that solves, as a program without Python; it is compiled when it is first called.

    Its kernels and what calls them are compiled apart, which takes less time and gives programs as fast.

    Args:
        function: The function.
        in_python: Whether Python calls the kernels all the same. That of torch 2.13 which does not crashes where LAPACK is
            called within a branch.

    Raises:
        UnavailableError: If this torch cannot.
    """
    if not is_supported():
        oldest = ".".join(map(str, OLDEST_TORCH))
        raise UnavailableError(f"torch {torch.__version__} cannot compile a solve: pip install 'torch>={oldest}'")
    return torch.compile(function, fullgraph=True, options=None if in_python else WITHOUT_PYTHON)


@contextmanager
def nothing_compiled() -> Iterator[None]:
    """Forgets all programs that were compiled, in this process and on disk; the compiler itself stays as it is."""
    before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    torch.compiler.reset()
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        try:
            yield
        finally:
            torch.compiler.reset()
            if before is None:
                del os.environ["TORCHINDUCTOR_CACHE_DIR"]
            else:
                os.environ["TORCHINDUCTOR_CACHE_DIR"] = before


def count_compilations(work: Callable[[], object]) -> int:
    """Does the work and says how many programs torch compiled for it."""
    counters = torch._dynamo.utils.counters  # not imported above, since that takes a second
    before = counters["stats"]["unique_graphs"]
    work()
    return int(counters["stats"]["unique_graphs"] - before)
