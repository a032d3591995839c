"""`OwnRows`: the rows of each problem, in front of those that it does not keep."""

import torch

from dyn_numerics.ode.own_rows import OwnRows

KEPT = torch.tensor([[True, True], [False, True], [True, False], [False, False], [False, True]])


def test_each_has_its_own_in_order():
    own = OwnRows(KEPT)
    rows = torch.arange(10).reshape(5, 2)
    assert own.kept.tolist() == [[True, True], [True, True], [False, True]]
    assert own.n_whole == 2
    assert own.of(rows)[own.kept].tolist() == [0, 1, 4, 3, 9]
    assert own.repeated(rows).tolist() == [[0, 1], [4, 3], [4, 9]]
    inner = torch.stack([rows, -rows], -1).unsqueeze(-1)
    assert torch.equal(own.repeated(inner)[..., 1, 0], -own.repeated(rows))


def test_what_all_keep_is_as_it_is():
    rows = torch.arange(6.0).reshape(3, 2)
    own = OwnRows(torch.ones(3, 2, dtype=torch.bool))
    assert own.of(rows) is rows
    assert own.repeated(rows) is rows
    assert own.n_whole == 3


def test_nothing_at_all():
    for rows, lead in ((0, 2), (3, 0)):
        own = OwnRows(torch.ones(rows, lead, dtype=torch.bool))
        assert own.of(torch.zeros(rows, lead, 4)).shape == (rows, lead, 4)
    own = OwnRows(torch.zeros(3, 2, dtype=torch.bool))
    assert (own.of(torch.zeros(3, 2)).shape, own.kept.shape, own.n_whole) == ((0, 2), (0, 2), 0)


def test_as_many_as_any_lane_keeps():
    rows = torch.arange(5)

    def own(kept):
        return OwnRows(kept).repeated(rows)

    assert torch.func.vmap(own, in_dims=1)(KEPT).tolist() == [[0, 2, 2], [0, 1, 4]]
