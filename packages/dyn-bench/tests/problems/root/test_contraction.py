"""Contractions: their fixed points, and the rates at which iterates come closer."""

import math

import pytest
import torch

from dyn_bench.problems.root.affine_map import affine_map
from dyn_bench.problems.root.cosine_map import cosine_map
from dyn_bench.problems.root.kepler_equation import kepler_equation
from dyn_bench.problems.root.quadratic_map import quadratic_map

PROBLEMS = {
    "affine": affine_map((0.3, 0.6, 0.9), dim=4),
    "affine, not normal": affine_map((0.3, 0.6, 0.9), dim=4, departure=2.0),
    "cosine": cosine_map(5),
    "Kepler": kepler_equation(50),
    "quadratic": quadratic_map(50),
}

every_problem = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)


def distances(problem, count):
    """Euclidean distances of iterates from the fixed point, `[count, batch]`."""
    z, found = problem.start, []
    for _ in range(count):
        found.append(torch.linalg.vector_norm(z - problem.fixed_point, dim=-1))
        z = problem.map(z, *problem.args)
    return torch.stack(found)


@every_problem
def test_fixed_points_are_fixed(problem):
    residual = problem.map(problem.fixed_point, *problem.args) - problem.fixed_point
    assert residual.abs().max() < 1e-15 * (1 + problem.fixed_point.abs().max()) * (
        20 if "affine" in problem.name else 1
    )
    assert problem.error(problem.fixed_point).max() == 0
    assert problem.error(problem.start).min() > 1e-4


@every_problem
def test_iterates_approach_at_the_rate(problem):
    """Measured between distances of 1e-6 and 1e-11, of those samples that take more than a few steps from one to the other."""
    found = distances(problem, 500)
    measured = []
    for rate, distance in zip(problem.rate.tolist(), found.T, strict=True):
        between = torch.nonzero((distance < 1e-6) & (distance > 1e-11)).squeeze(-1)
        if rate > 0.15:
            first, last = between[0], between[-1]
            slope = (distance[last] / distance[first]).log() / (last - first)
            measured.append(slope.exp().item() / rate)
    assert len(measured) > len(problem.rate) / 2
    assert measured == pytest.approx([1] * len(measured), abs=0.002)


@every_problem
def test_rates_are_spectral_radii(problem):
    jacobian = torch.func.jacrev(lambda z: problem.map(z, *problem.args).sum(0))
    if problem.fixed_point.is_complex():
        radius = 2 * problem.fixed_point.abs().squeeze(-1)
    else:
        radius = torch.linalg.eigvals(jacobian(problem.fixed_point).movedim(1, 0)).abs().amax(-1)
    torch.testing.assert_close(problem.rate, radius, rtol=1e-12, atol=1e-12)


def test_a_normal_map_contracts_in_every_step_and_another_in_the_end():
    normal, other = (distances(PROBLEMS[name], 30) for name in ("affine", "affine, not normal"))
    assert (normal[1:] <= normal[:-1] * PROBLEMS["affine"].rate + 1e-14).all()
    assert (other.amax(0) > other[0] * 1.2).any()
    matrix = PROBLEMS["affine"].args[0]
    torch.testing.assert_close(matrix @ matrix.mT, matrix.mT @ matrix)
    assert torch.linalg.matrix_norm(PROBLEMS["affine, not normal"].args[0], 2).min() > 1.5


def test_kepler_s_equation_is_his():
    problem = PROBLEMS["Kepler"]
    mean_anomaly, eccentricity = problem.args
    anomaly = problem.fixed_point
    torch.testing.assert_close(anomaly - eccentricity * torch.sin(anomaly), mean_anomaly)
    assert 0.1 <= eccentricity.min() < 0.2 < 0.8 < eccentricity.max() <= 0.9
    assert -math.pi <= anomaly.min() < -2 < 2 < anomaly.max() <= math.pi


def test_quadratic_maps_turn_and_some_are_slow():
    """Their derivatives have all angles, not real ones alone."""
    rate = PROBLEMS["quadratic"].rate
    assert 0.3 <= rate.min() < 0.4 < 0.85 < rate.max() <= 0.95
    angle = PROBLEMS["quadratic"].fixed_point.angle()
    assert torch.histc(angle, 4, -math.pi, math.pi).min() > 3


@pytest.mark.parametrize("name", ["cosine", "Kepler", "quadratic"])
def test_elementwise_maps_do_not_see_the_batch(name):
    problem = PROBLEMS[name]
    order = torch.randperm(len(problem.rate), generator=torch.Generator().manual_seed(0))
    moved = problem.take(order)
    z, there = problem.start, moved.start
    for _ in range(20):
        z, there = problem.map(z, *problem.args), moved.map(there, *moved.args)
    assert torch.equal(there, z[order])
    assert torch.equal(moved.fixed_point, problem.fixed_point[order])
    assert torch.equal(moved.rate, problem.rate[order])


@every_problem
def test_in_single_precision(problem):
    dtype = torch.complex64 if problem.start.is_complex() else torch.float32
    single = problem.to(dtype)
    assert single.rate.dtype == torch.float64
    z = single.start
    for _ in range(400):
        z = single.map(z, *single.args)
    assert z.dtype == dtype
    assert single.error(z).max() < 1e-4
    assert (z.to(problem.start.dtype) - problem.fixed_point).abs().max() > 0


@pytest.mark.parametrize("draw", [kepler_equation, quadratic_map, lambda n, seed: affine_map((0.5,) * n, 3, seed=seed)])
def test_seeds_decide(draw):
    one, same, other = (draw(4, seed=seed).fixed_point for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
