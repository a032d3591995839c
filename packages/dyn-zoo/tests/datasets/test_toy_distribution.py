"""What every toy distribution has to fulfil, whatever it looks like."""

from __future__ import annotations

import dataclasses
import math
import pickle

import pytest
import torch

from dyn_zoo.datasets import (
    Checkerboard,
    EightGaussians,
    Moons,
    Pinwheel,
    Rings,
    ToyDistribution,
    TwoSpirals,
)

ALL = [Checkerboard(), EightGaussians(), Moons(), Pinwheel(), Rings(), TwoSpirals()]
SMOOTH = [data for data in ALL if not isinstance(data, Checkerboard)]

# A square box [-a, a]² that holds all but 1e-8 of the distribution and a spacing at which the trapezoidal rule has
# converged; also a coarser spacing, a multiple of the other: (a, spacing, coarse spacing).
BOXES: dict[type[ToyDistribution], tuple[float, float, float]] = {
    Checkerboard: (4.8, 0.1, 0.8),
    EightGaussians: (5.6, 0.1, 0.8),
    Moons: (3.0, 0.05, 0.5),
    Pinwheel: (5.6, 0.05, 0.7),
    Rings: (3.84, 0.04, 0.64),
    TwoSpirals: (4.2, 0.1, 0.7),
}


def name(data: ToyDistribution) -> str:
    return type(data).__name__


@pytest.fixture(scope="module")
def density_on_grid():
    """Points `[m, m, 2]`, log density `[m, m]` and the area of a grid cell, evaluated once for each distribution."""
    cache = {}

    def evaluate(data: ToyDistribution):
        if data not in cache:
            edge, spacing, _ = BOXES[type(data)]
            axis = torch.arange(-edge + spacing / 2, edge, spacing, dtype=torch.float64)
            x = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1)
            cache[data] = x, data.log_prob(x), spacing**2
        return cache[data]

    return evaluate


@pytest.mark.parametrize("data", ALL, ids=name)
class TestDensity:
    def test_integrates_to_one(self, data, density_on_grid):
        _, log_p, area = density_on_grid(data)
        assert float(log_p.exp().sum() * area) == pytest.approx(1, abs=1e-6)

    def test_entropy_is_the_integral_of_minus_p_log_p(self, data, density_on_grid):
        _, log_p, area = density_on_grid(data)
        p = log_p.exp()
        assert -float(torch.special.xlogy(p, p).sum() * area) == pytest.approx(data.entropy, abs=2e-6)

    def test_entropy_is_the_mean_of_minus_log_p_over_samples(self, data):
        n = 4000
        surprise = -data.log_prob(data.sample(n, seed=1, dtype=torch.float64))
        standard_error = float(surprise.std()) / math.sqrt(n)
        assert standard_error < 0.03
        assert abs(float(surprise.mean()) - data.entropy) <= 4 * standard_error + 1e-12

    def test_samples_fill_the_plane_in_proportion_to_the_density(self, data, density_on_grid):
        # Pearson's chi-squared over the coarse cells of the box that expect at least 10 samples, the others taken
        # together as one.
        n = 20_000
        x, log_p, area = density_on_grid(data)
        edge, _, coarse = BOXES[type(data)]
        n_cells = round(2 * edge / coarse)

        def cell(points):
            index = ((points + edge) / coarse).floor().clamp(0, n_cells - 1).long()
            return index[..., 0] * n_cells + index[..., 1]

        expected = torch.zeros(n_cells**2, dtype=torch.float64)
        expected.index_add_(0, cell(x).reshape(-1), n * area * log_p.exp().reshape(-1))
        counted = torch.bincount(cell(data.sample(n, seed=2, dtype=torch.float64)), minlength=n_cells**2).double()
        filled = expected >= 10
        expected = torch.cat([expected[filled], expected[~filled].sum()[None] + 1e-9])
        counted = torch.cat([counted[filled], counted[~filled].sum()[None]])
        freedom = len(expected) - 1
        assert freedom >= 8
        chi_squared = float(((counted - expected) ** 2 / expected).sum())
        assert abs(chi_squared - freedom) < 5 * math.sqrt(2 * freedom)

    def test_takes_any_batch_shape(self, data):
        x = data.sample(60, seed=3, dtype=torch.float64)
        log_p = data.log_prob(x)
        assert log_p.shape == (60,)
        torch.testing.assert_close(data.log_prob(x.reshape(3, 4, 5, 2)), log_p.reshape(3, 4, 5))
        torch.testing.assert_close(data.log_prob(x[7]), log_p[7])
        torch.testing.assert_close(torch.cat([data.log_prob(rows) for rows in x.split(7)]), log_p)
        assert data.log_prob(x[:0]).shape == (0,)

    def test_keeps_the_dtype(self, data):
        x = data.sample(50, seed=4, dtype=torch.float64)
        single = data.log_prob(x.float())
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), data.log_prob(x.float().double()), rtol=1e-5, atol=1e-4)
        half = data.log_prob(x.half())
        assert half.dtype == torch.float16
        torch.testing.assert_close(half, data.log_prob(x.half().float()).half())

    def test_a_point_without_a_value_leaves_its_neighbours_alone(self, data):
        x = data.sample(4, seed=5, dtype=torch.float64)
        good = data.log_prob(x)
        x[1, 0], x[2, 1] = math.nan, math.inf
        log_p = data.log_prob(x)
        assert log_p[1].isnan()
        assert log_p[2] == -math.inf
        assert torch.equal(log_p[[0, 3]], good[[0, 3]])

    @pytest.mark.parametrize(
        ("x", "error", "message"),
        [
            ([[0.0, 0.0]], TypeError, r"x: got list, expected a Tensor"),
            (torch.zeros(3, 2, dtype=torch.int64), TypeError, r"x: got dtype torch.int64, expected a real floating"),
            (torch.zeros(3, 2, dtype=torch.complex64), TypeError, r"x: got dtype torch.complex64"),
            (torch.zeros(3), ValueError, r"x: got shape \[3\], expected \[\.\.\., 2\]"),
            (torch.tensor(0.0), ValueError, r"x: got shape \[\], expected"),
        ],
    )
    def test_refuses_what_is_no_point(self, data, x, error, message):
        with pytest.raises(error, match=message):
            data.log_prob(x)


@pytest.mark.parametrize("data", SMOOTH, ids=name)
def test_gradient_of_log_prob(data):
    x = data.sample(12, seed=6, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(data.log_prob, x)


@pytest.mark.parametrize("data", SMOOTH, ids=name)
def test_gradient_is_finite_at_special_points(data):
    x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [30.0, -30.0]], dtype=torch.float64, requires_grad=True)
    log_p = data.log_prob(x)
    (gradient,) = torch.autograd.grad(log_p[log_p.isfinite()].sum(), x)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("data", ALL, ids=name)
class TestSampling:
    def test_labels(self, data):
        n = 5000
        x, label = data.sample_labelled(n, seed=0)
        assert x.shape == (n, 2)
        assert label.shape == (n,)
        assert label.dtype == torch.int64
        share = 1 / data.n_labels
        counts = torch.bincount(label, minlength=data.n_labels)
        assert len(counts) == data.n_labels
        assert (counts - n * share).abs().max() < 5 * math.sqrt(n * share * (1 - share))

    def test_sample_draws_the_labelled_points(self, data):
        assert torch.equal(data.sample(100, seed=1), data.sample_labelled(100, seed=1)[0])

    def test_seed_decides(self, data):
        first = data.sample_labelled(100, seed=1)
        again = data.sample_labelled(100, seed=1)
        other = data.sample_labelled(100, seed=2)
        for value, same, different in zip(first, again, other, strict=True):
            assert torch.equal(value, same)
            assert not torch.equal(value, different)

    def test_seed_neither_reads_nor_changes_the_global_state(self, data):
        samples = []
        for state in (1, 2):
            torch.manual_seed(state)
            before = torch.get_rng_state()
            samples.append(data.sample(100, seed=7))
            samples.append(data.sample(100, generator=torch.Generator().manual_seed(7)))
            assert torch.equal(torch.get_rng_state(), before)
        assert all(torch.equal(sample, samples[0]) for sample in samples)

    def test_generator_moves_on(self, data):
        generator = torch.Generator().manual_seed(3)
        first, second = (data.sample(100, generator=generator) for _ in range(2))
        assert torch.equal(first, data.sample(100, seed=3))
        assert not torch.equal(first, second)

    def test_without_a_seed_the_global_generator_draws(self, data):
        torch.manual_seed(4)
        first, second = data.sample(100), data.sample(100)
        torch.manual_seed(4)
        assert torch.equal(first, data.sample(100))
        assert not torch.equal(first, second)
        assert torch.equal(first, data.sample(100, seed=4))

    def test_dtypes_agree_up_to_rounding(self, data):
        exact = data.sample(200, seed=5, dtype=torch.float64)
        assert exact.dtype == torch.float64
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            x = data.sample(200, seed=5, dtype=dtype)
            assert x.dtype == dtype
            torch.testing.assert_close(x, exact.to(dtype), rtol=0, atol=0)

    def test_follows_the_defaults_of_torch(self, data):
        exact = data.sample(50, seed=6, dtype=torch.float64)
        assert data.sample(50, seed=6).dtype == torch.float32
        torch.set_default_dtype(torch.float64)
        try:
            assert torch.equal(data.sample(50, seed=6), exact)
        finally:
            torch.set_default_dtype(torch.float32)
        with torch.device("meta"):
            x, label = data.sample_labelled(50, seed=6)
            on_cpu = data.sample(50, seed=6, dtype=torch.float64, device="cpu")
        assert x.device.type == label.device.type == "meta"
        assert torch.equal(on_cpu, exact)

    def test_device(self, data):
        x, label = data.sample_labelled(50, seed=6, device=torch.device("meta"))
        assert x.device.type == label.device.type == "meta"

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"n": 0}, ValueError, r"n: got 0, expected at least 1"),
            ({"n": -3}, ValueError, r"n: got -3"),
            ({"n": 2.0}, TypeError, r"n: got 2\.0 of type float, expected an int"),
            ({"n": True}, TypeError, r"n: got True of type bool"),
            ({"n": 1, "seed": -1}, ValueError, r"seed: got -1, expected an integer from 0"),
            ({"n": 1, "seed": 2**64}, ValueError, r"seed: got 18446744073709551616"),
            ({"n": 1, "seed": 0.5}, TypeError, r"seed: got 0\.5 of type float, expected an int or None"),
            ({"n": 1, "seed": True}, TypeError, r"seed: got True of type bool"),
            ({"n": 1, "seed": 0, "generator": torch.Generator()}, ValueError, r"seed, generator: got both"),
            ({"n": 1, "generator": 0}, TypeError, r"generator: got int, expected a torch\.Generator"),
            ({"n": 1, "dtype": torch.int64}, TypeError, r"dtype: got torch\.int64, expected a real floating"),
            ({"n": 1, "dtype": torch.complex64}, TypeError, r"dtype: got torch\.complex64"),
            ({"n": 1, "dtype": "float32"}, TypeError, r"dtype: got 'float32', expected a torch\.dtype"),
        ],
    )
    @pytest.mark.parametrize("method", ["sample", "sample_labelled"])
    def test_refuses_bad_arguments(self, data, method, arguments, error, message):
        with pytest.raises(error, match=message):
            getattr(data, method)(**arguments)

    def test_largest_seed(self, data):
        assert data.sample(1, seed=2**64 - 1).isfinite().all()


@pytest.mark.parametrize("data", ALL, ids=name)
def test_is_a_value(data):
    assert pickle.loads(pickle.dumps(data)) == data
    assert type(data)() == data
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.noise = 1.0


def test_without_a_density():
    class Point(ToyDistribution):
        n_labels = 1

        def _draw(self, n, generator):
            return torch.ones(n, 2, dtype=torch.float64), torch.zeros(n, dtype=torch.int64)

    data = Point()
    assert data.entropy is None
    assert torch.equal(data.sample(3), torch.ones(3, 2))
    with pytest.raises(NotImplementedError, match="no known density"):
        data.log_prob(torch.zeros(1, 2))


@pytest.mark.gpu
@pytest.mark.parametrize("data", ALL, ids=name)
class TestOnCuda:
    def test_seed_gives_the_same_points(self, data):
        x, label = data.sample_labelled(1000, seed=1, device="cuda")
        expected_x, expected_label = data.sample_labelled(1000, seed=1)
        assert x.device.type == label.device.type == "cuda"
        assert torch.equal(x.cpu(), expected_x)
        assert torch.equal(label.cpu(), expected_label)

    def test_log_prob_agrees(self, data):
        x = data.sample(500, seed=2, dtype=torch.float64)
        torch.testing.assert_close(data.log_prob(x.cuda()).cpu(), data.log_prob(x), rtol=1e-9, atol=1e-9)

    def test_refuses_a_cuda_generator(self, data):
        with pytest.raises(ValueError, match="expected a CPU generator"):
            data.sample(1, generator=torch.Generator("cuda"))
