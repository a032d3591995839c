from __future__ import annotations

import functools

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from dyn_models.fields.signature import takes_time


class OfTimeAndState(nn.Module):
    def forward(self, t, x):
        return x * t

    def of_state(self, x):
        return x


class OfState(nn.Module):
    def forward(self, x):
        return x


class WithSwitch(nn.Module):
    def forward(self, x, scale=2.0):
        return scale * x


class Call:
    def __call__(self, t, x):
        return t * x

    @staticmethod
    def static(x):
        return x

    @classmethod
    def of_class(cls, t, x):
        return x


class AnyNumber(nn.Module):
    def forward(self, *args):
        return args[1]


def of_state(x):
    return x


def of_time_and_state(t, x, scale):
    return scale * t * x


CASES = {
    "sequential": (nn.Sequential(nn.Linear(2, 2)), False),
    "linear": (nn.Linear(2, 2), False),
    "module of t, x": (OfTimeAndState(), True),
    "module of x": (OfState(), False),
    "module of x with a default": (WithSwitch(), False),
    "function of x": (of_state, False),
    "function of t, x and an arg": (of_time_and_state, True),
    "lambda of t, x": (lambda t, x: x, True),
    "lambda of other names": (lambda time, state: state, True),
    "lambda of x": (lambda x: x, False),
    "t first, x with a default": (lambda t, x=None: x, True),
    "second with a default": (lambda x, k=3: x, False),
    "all with defaults": (lambda x=None, k=3: x, False),
    "t and x with defaults": (lambda t=0, x=None: x, True),
    "any number": (lambda *args: args[1], True),
    "one and any number": (lambda t, *rest: rest[0], True),
    "keyword with a default": (lambda t, x, *, k=3: x, True),
    "x and a keyword with a default": (lambda x, *, k=3: x, False),
    "x and any keywords": (lambda x, **options: x, False),
    "positional only": (eval("lambda t, x, /: x"), True),
    "partial that leaves t, x": (functools.partial(of_time_and_state, scale=2), True),
    "partial that leaves x": (functools.partial(lambda k, x: x, 3), False),
    "partial of a module of x": (functools.partial(nn.Linear(2, 2)), False),
    "partial of a module with a switch": (functools.partial(WithSwitch(), scale=3.0), False),
    "partial of a module of t, x": (functools.partial(OfTimeAndState()), True),
    "bound method": (OfTimeAndState().of_state, False),
    "bound method of t, x": (OfTimeAndState().forward, True),
    "object with a call": (Call(), True),
    "static method": (Call.static, False),
    "class method": (Call.of_class, True),
    "compiled sequential": (torch.compile(nn.Sequential(nn.Linear(2, 2))), False),
    "compiled module of t, x": (torch.compile(OfTimeAndState()), True),
    "data parallel": (nn.DataParallel(nn.Linear(2, 2)), False),
    "average of a module of t, x": (AveragedModel(OfTimeAndState()), True),
    "average of a compiled linear": (AveragedModel(torch.compile(nn.Linear(2, 2))), False),
    "own module of any number": (AnyNumber(), True),
}


@pytest.mark.parametrize("name", CASES)
def test_reads_the_signature(name):
    field, expected = CASES[name]
    assert takes_time(field) is expected


REFUSED = {
    "number": (3.0, "vector_field: got a float, expected a function or module"),
    "none": (None, "vector_field: got a NoneType"),
    "tensor": (torch.ones(2), "vector_field: got a Tensor"),
    "required keyword": (lambda t, x, *, k: x, r"vector_field: got the signature \(t, x, \*, k\), expected"),
    "nothing": (lambda: None, r"vector_field: got the signature \(\), expected"),
    "keywords alone": (lambda **options: None, r"vector_field: got the signature \(\*\*options\), expected"),
    "keyword alone": (lambda *, x=None: x, "vector_field: got the signature"),
    "time alone": (lambda t: t, r"vector_field: got the signature \(t\), expected the time first"),
    "time last": (lambda x, t: x, r"vector_field: got the signature \(x, t\), expected the time first"),
    "time last, with a default": (lambda x, t=None: x, "vector_field: .* expected the time first"),
    "an argument but no time": (lambda x, u: x * u, "vector_field: .* expected the time first"),
    "arguments but no time": (lambda x, *args: x, "vector_field: .* expected the time first"),
    "builtin": (torch.tanh, "vector_field: got <built-in method tanh .* cannot be read; wrap it"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_what_cannot_be_a_field(name):
    field, message = REFUSED[name]
    with pytest.raises(TypeError, match=message):
        takes_time(field)


def test_message_names_the_argument():
    with pytest.raises(TypeError, match="integral_loss: got a int"):
        takes_time(3, "integral_loss")
