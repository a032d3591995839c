"""Every system is solved from its standard start, or the method says honestly that it was not."""

import pytest
import torch

from dyn_bench.problems.root.more_garbow_hillstrom import MORE_GARBOW_HILLSTROM
from dyn_numerics import RootStatus, root_find

METHODS = {
    "newton": {"solver": "newton", "line_search": "armijo"},
    "levenberg_marquardt": {"solver": "levenberg_marquardt"},
}
TRAPPED = {("levenberg_marquardt", "Freudenstein-Roth"), ("levenberg_marquardt", "trigonometric")}
"""Where the way down leads to a stationary point of the residual, as it does for MINPACK."""

UNSOLVED = TRAPPED | {("newton", "Freudenstein-Roth"), ("newton", "Chebyquad 9")}
"""Newton's directions become useless before a root is near: the Jacobian is all but singular."""

UNSOLVED_IN_FLOAT32 = UNSOLVED | {("newton", "Brown almost-linear")}


def solved(system, method, dtype, tolerance):
    sol = root_find(
        system.function,
        system.z0.to(dtype).unsqueeze(0),
        rtol=tolerance,
        atol=tolerance,
        max_steps=300,
        throw=False,
        **METHODS[method],
    )
    return sol, system.error(sol.z.double()).item()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", MORE_GARBOW_HILLSTROM)
def test_in_float64(name, method):
    system = MORE_GARBOW_HILLSTROM[name]
    sol, error = solved(system, method, torch.float64, 1e-12)
    if (method, name) in UNSOLVED:
        assert sol.status == [RootStatus.STAGNATED]
        assert sol.residual > 1e-3
        assert error > 1e-3
    else:
        assert sol.status[0] in (RootStatus.CONVERGED, RootStatus.ROUNDING)
        assert error < (1e-5 if system.singular else 1e-6)
    if (method, name) in TRAPPED:
        near = [(sol.z[0] - torch.tensor(trap, dtype=torch.float64)).abs().max() for trap in system.traps]
        assert min(near) < 1e-5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", MORE_GARBOW_HILLSTROM)
def test_in_float32(name, method):
    system = MORE_GARBOW_HILLSTROM[name]
    sol, _ = solved(system, method, torch.float32, 1e-5)
    if (method, name) in UNSOLVED_IN_FLOAT32:
        assert not sol.status[0].is_success
    else:
        assert sol.status[0] in (RootStatus.CONVERGED, RootStatus.ROUNDING)
        # What errors that leaves is a matter of the condition, which for Watson's systems is beyond float32.
        size, first = (system.function(z.double()).square().mean().sqrt() for z in (sol.z[0], system.z0))
        assert size < 1e-4 * (1 + first)
