from __future__ import annotations

import functools
from types import SimpleNamespace

import torch
from torch import nn
from torch.func import vjp, vmap

from dyn_sensitivity import captured_tensors
from dyn_sensitivity.captured_tensors import captured_parameters, refuse_entangled, refuse_undeclared

elsewhere = nn.Linear(2, 2)  # a global whose name is an attribute below


def parameters_of(*modules):
    return {id(p) for module in modules for p in module.parameters()}


def found_in(f):
    found = captured_parameters(f)
    assert len({id(p) for p in found}) == len(found)  # each once
    return {id(p) for p in found}


def test_finds_all_that_a_field_holds_each_once():
    one, two, shared = nn.Linear(2, 2), nn.Linear(2, 3), nn.Linear(2, 4)
    both = nn.Sequential(shared, shared)
    f = functools.partial(lambda a, t, x, b=two: (one, both, shared), both)
    assert found_in(f) == parameters_of(one, two, shared)


def test_leaves_out_frozen_parameters():
    module = nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    assert found_in(module) == {id(module.weight)}


def test_an_attribute_is_no_global_of_that_name():
    inner = SimpleNamespace(elsewhere=nn.Linear(2, 2))
    assert found_in(lambda t, x: inner.elsewhere(x)) == parameters_of(inner.elsewhere)
    assert found_in(lambda t, x: elsewhere(x)) == parameters_of(elsewhere)


def test_does_not_wander_through_plain_objects():
    """A captured object is looked into; the objects that it refers to are not, or the search would not end."""
    far = SimpleNamespace(module=nn.Linear(2, 2))
    near = SimpleNamespace(module=nn.Linear(2, 2), far=far, itself=None)
    near.itself = [near]
    assert found_in(lambda t, x: near.module(x)) == parameters_of(near.module)


def test_a_cell_that_is_not_filled_yet():
    def f(t, x):
        return later(x)

    assert found_in(f) == set()
    later = nn.Linear(2, 2)
    assert found_in(f) == parameters_of(later)


def test_callables_without_a_signature_hold_nothing():
    assert found_in(torch.sin) == set()
    assert found_in(functools.partial(max, 1)) == set()


def test_does_not_look_into_torch_itself(monkeypatch):
    """Its functions lead through most of its source, and hold nothing of a user's."""
    module, looked_at = nn.Linear(2, 2), []
    contents = captured_tensors._contents
    monkeypatch.setattr(captured_tensors, "_contents", lambda *named: looked_at.append(named) or contents(*named))

    def f(t, x):
        slope, pull_back = vjp(module, x)
        return slope + vmap(pull_back)(x)[0]

    assert found_in(f) == parameters_of(module)
    assert len(looked_at) < 20


def test_refuses_nothing_that_is_declared():
    a, b = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    computed = (a * b).exp()
    refuse_undeclared(lambda: None, [2 * computed, computed, torch.ones(2)], [computed])
    refuse_undeclared(lambda: None, [a, computed], [a, b])
    refuse_entangled([computed], [computed])
    refuse_entangled([a, b], [a, b])
