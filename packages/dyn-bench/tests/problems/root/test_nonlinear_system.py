"""What a system says of starts and errors."""

import math

import torch

from dyn_bench.problems.root.more_garbow_hillstrom import MORE_GARBOW_HILLSTROM
from dyn_bench.problems.root.nonlinear_system import NonlinearSystem


def test_its_numbers_are_tensors():
    system = NonlinearSystem("two", lambda z: z, (1.0, 2.0), ((3.0, 4.0), (5.0, 6.0), (7.0, 8.0)), "by hand")
    assert system.dim == 2
    assert system.z0.dtype == system.roots.dtype == torch.float64
    assert system.z0.tolist() == [1, 2]
    assert system.roots.tolist() == [[3, 4], [5, 6], [7, 8]]


def test_starts_fill_a_box_around_the_standard_start():
    system = MORE_GARBOW_HILLSTROM["Powell singular"]
    starts = system.starts(1000, scale=0.5, seed=4)
    offset = (starts - system.z0).abs()
    assert starts.shape == (1000, 4)
    assert (offset.amax(0) <= 0.5).all()
    assert (offset.amax(0) > 0.49).all()
    assert ((starts - system.z0).mean(0).abs() < 0.05).all()
    assert torch.equal(starts, system.starts(1000, scale=0.5, seed=4))
    assert not torch.equal(starts, system.starts(1000, scale=0.5, seed=5))


def test_errors_are_against_the_nearest_root_and_scaled_as_tolerances_are():
    system = NonlinearSystem("two", lambda z: z, (0.0, 0.0), ((1.0, 0.0), (-3.0, 9.0)), "by hand")
    z = torch.tensor([[1.0, 0.5], [-3.0, 7.0], [2.0, 0.25]], dtype=torch.float64)
    assert system.error(z).tolist() == [0.5, 0.2, 0.5]
    assert system.error(z[1]).item() == 0.2
    assert system.error(z.float()).dtype == torch.float32


def test_chebyquad_s_numbers_may_come_in_any_order():
    system = MORE_GARBOW_HILLSTROM["Chebyquad 5"]
    shuffled = system.roots[:, [3, 0, 4, 2, 1]]
    assert system.error(shuffled).item() == 0
    assert system.error(shuffled + 0.1).item() > 0.05


def test_angles_may_be_off_by_whole_turns():
    system = MORE_GARBOW_HILLSTROM["trigonometric"]
    turns = 2 * math.pi * torch.arange(-4, 6, dtype=torch.float64)
    assert system.error(system.roots + turns).max() < 1e-14
    assert system.error(system.roots + turns / 2).min() > 1


def test_traps_are_told_by_the_scale_of_errors():
    system = NonlinearSystem("two", lambda z: z, (0.0, 0.0), ((0.0, 0.0),), "by hand", traps=((9.0, 0.0), (-1.0, 4.0)))
    z = torch.tensor([[9.0, 0.05], [9.9, 0.0], [-1.0, 4.6], [0.0, 0.0]], dtype=torch.float64)
    assert system.is_trapped(z, within=0.11).tolist() == [True, True, False, False]
    assert system.is_trapped(z).tolist() == [False] * 4
    assert system.is_trapped(torch.tensor([9.0, 0.0])).item() is True


def test_a_system_without_traps_has_none():
    assert MORE_GARBOW_HILLSTROM["Rosenbrock"].is_trapped(torch.ones(3, 2)).tolist() == [False] * 3
