"""What is compiled, and forgotten."""

import os

import pytest
import torch

from dyn_bench.protocols import compilation
from dyn_bench.protocols.compilation import compile_whole, count_compilations, nothing_compiled
from dyn_bench.protocols.unavailable import UnavailableError


def test_a_torch_that_cannot_is_told_what_could(monkeypatch):
    monkeypatch.setattr(compilation, "is_supported", lambda: False)
    with pytest.raises(UnavailableError, match=r"cannot compile a solve: pip install 'torch>=2\.13'"):
        compile_whole(lambda x: x)


@pytest.mark.parametrize("before", [None, "somewhere"])
def test_caches_are_another_folder_and_then_what_they_were(monkeypatch, before):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    if before is not None:
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", before)
    folders = []

    def look():
        folders.append(os.environ["TORCHINDUCTOR_CACHE_DIR"])
        raise ZeroDivisionError(os.listdir(folders[0]))

    with pytest.raises(ZeroDivisionError, match=r"^\[\]$"), nothing_compiled():
        look()
    (folder,) = folders
    assert folder != before
    assert os.environ.get("TORCHINDUCTOR_CACHE_DIR") == before
    assert not os.path.exists(folder)


def test_programs_are_counted():
    torch.compiler.reset()
    double = torch.compile(lambda x: 2 * x, backend="eager")
    assert count_compilations(lambda: double(torch.ones(3))) == 1
    assert count_compilations(lambda: double(torch.zeros(3))) == 0
    assert count_compilations(lambda: double(torch.zeros(3, dtype=torch.float64))) == 1
