import math

import pytest
import torch

from dyn_numerics.norms import norm_at_any_scale, rms_norm


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


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_at_any_scale(scale):
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]]).mul_(scale).requires_grad_()
    norm = norm_at_any_scale(x)
    torch.testing.assert_close(norm.detach(), torch.tensor([5 * scale, 0.0]), rtol=1e-6, atol=0)
    norm.sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    assert norm_at_any_scale(torch.empty(3, 0)).tolist() == [0, 0, 0]


def test_at_any_scale_of_complex_and_not_finite_elements():
    assert norm_at_any_scale(torch.tensor([3 + 4j, 12e0])).item() == pytest.approx(13, rel=1e-6)
    assert norm_at_any_scale(torch.tensor([1.0, -math.inf])).item() == math.inf
    assert math.isnan(norm_at_any_scale(torch.tensor([1.0, math.nan])).item())
