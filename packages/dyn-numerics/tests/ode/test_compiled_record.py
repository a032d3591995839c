"""What a compiled solve writes into buffers, against what the eager one keeps in lists."""

from __future__ import annotations

import torch

from dyn_numerics.ode import eager_loop
from dyn_numerics.ode.attempt import initial_state
from dyn_numerics.ode.compiled_record import RecordStates
from dyn_numerics.ode.posed import pose
from dyn_numerics.ode.step_record import RecordSteps

D = torch.float64


def test_every_sample_has_the_ends_of_its_accepted_steps_and_the_states_that_they_start_from():
    x0 = torch.tensor([[1.0, 2.0], [0.1, 0.2], [5.0, 1.0]], dtype=D)
    posed = pose(
        lambda t, x: x.flip(-1) * torch.cos(5 * t).square(),
        x0,
        torch.tensor([2.0, 0.5], dtype=D),
        solver="bosh3",
        rtol=1e-4,
        atol=1e-4,
        stepping="per_sample",
    )
    problem, kept, steps = posed.problem, RecordStates(200, posed.start, posed.times), RecordSteps(torch.Size([3]))
    state, _ = eager_loop.solve(problem, initial_state(problem, posed.start)[0], [kept, steps])
    record = steps.result(state)
    assert (state.n_accepted < state.n_steps).any()  # rejected attempts leave nothing behind
    assert state.n_accepted.unique().numel() > 1
    for sample, count in enumerate(state.n_accepted.tolist()):
        ends, x = kept.ends[: count + 1, sample], kept.states[:count, sample]
        assert ends[0] == 2.0
        assert torch.equal(ends[1:], record.t1[:count, sample])
        # A step from each of the states leads to the next.
        t0, t1 = ends[:-1], ends[1:]
        after = problem.stepper.step(
            lambda t, x: x.flip(-1) * torch.cos(5 * t).square().unsqueeze(-1), t0, t1, x, None
        ).x
        assert torch.equal(x[0], x0[sample])
        torch.testing.assert_close(after, torch.cat([x[1:], state.x[sample : sample + 1]]), rtol=1e-12, atol=0)
