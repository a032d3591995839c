import math

import pytest
import torch

from dyn_numerics.norms import rms_norm


def test_by_hand():
    assert rms_norm(torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64)).item() == 2.5


def test_complex_elements_count_by_magnitude():
    norm = rms_norm(torch.tensor([3 + 4j, 0], dtype=torch.complex128))
    assert norm.dtype == torch.float64
    assert norm.item() == pytest.approx(5 / math.sqrt(2), rel=1e-15)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_accumulated_in_float32(dtype):
    norm = rms_norm(torch.full((10_000,), 300.0, dtype=dtype))  # whose squares overflow float16
    assert norm.dtype == torch.float32
    assert norm.item() == pytest.approx(300, rel=1e-3)


def test_empty_and_not_finite():
    assert rms_norm(torch.empty(0, 3)).item() == 0
    assert rms_norm(torch.tensor([1.0, math.inf])).item() == math.inf
    assert math.isnan(rms_norm(torch.tensor([1.0, math.nan])).item())
