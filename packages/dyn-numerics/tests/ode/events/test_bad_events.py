"""Events that cannot be watched for are refused by name."""

import pytest
import torch

from dyn_numerics import Event, odeint

D = torch.float64


def decay(t, x):
    return -x


def level(t, x):
    return x[..., 0] - 0.5


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((1.0,), TypeError, "condition: got a float, expected a function"),
        ((level, "jump"), TypeError, "jump: got a str"),
    ],
)
def test_what_cannot_be_called(arguments, error, message):
    with pytest.raises(error, match=message):
        Event(arguments[0], jump=arguments[1] if len(arguments) > 1 else None)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"direction": 2}, ValueError, r"direction: got 2, expected 1 \(rising\)"),
        ({"terminal": 1}, TypeError, "terminal: got a int, expected a truth value"),
        ({"max_jumps": 0}, ValueError, "max_jumps: got 0, expected an integer of at least 1"),
        ({"max_jumps": True}, ValueError, "max_jumps: got True"),
        ({"terminal": True, "jump": lambda t, x: x}, ValueError, "terminal: got True for an event with a jump"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        Event(level, **options)


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (level, "events: got a function, expected an Event or a sequence of such"),
        ([level], r"events: got a function at 0, expected an Event\(condition"),
        ([Event(lambda x: x)], r"events\[0\].condition: got a condition with the signature \(x\)"),
        ([Event(level), Event(level, jump=lambda t, x, k: x)], r"events\[1\].jump: got a jump with the signature"),
    ],
)
def test_what_is_no_event(events, message):
    with pytest.raises(TypeError, match=message):
        odeint(decay, torch.ones(2, dtype=D), [0.0, 1.0], events=events)


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
@pytest.mark.parametrize(
    ("condition", "error", "message"),
    [
        (lambda t, x: x, ValueError, r"events\[0\].condition: returned shape \[3, 2\], expected one element"),
        (
            lambda t, x: x[..., 0] > 0,
            TypeError,
            r"events\[0\].condition: returned dtype torch.bool, expected a real one",
        ),
        (lambda t, x: 0.0, TypeError, r"events\[0\].condition: returned a float, expected a tensor"),
    ],
)
def test_what_a_condition_must_not_return(condition, error, message, stepping):
    with pytest.raises(error, match=message):
        odeint(decay, torch.ones(3, 2, dtype=D), [0.0, 1.0], events=Event(condition), stepping=stepping)


def test_one_value_for_the_whole_batch():
    with pytest.raises(ValueError, match=r"returned shape \[\], expected one element for each sample, \[3\]"):
        odeint(decay, torch.ones(3, 2), [0.0, 1.0], events=Event(lambda t, x: x.sum()), stepping="per_sample")
    with pytest.raises(ValueError, match=r"returned shape \[3\], expected one element; try a component"):
        odeint(decay, torch.ones(3, 2), [0.0, 1.0], events=Event(level))


@pytest.mark.parametrize(
    ("jump", "error", "message"),
    [
        (lambda t, x: x[..., :1], ValueError, r"events\[0\].jump: returned shape \[1\], expected \[2\] as the state"),
        (lambda t, x: x.float(), TypeError, r"events\[0\].jump: returned dtype torch.float32, expected torch.float64"),
        (lambda t, x: (x, x), TypeError, r"events\[0\].jump: returned a tuple, expected a tensor"),
    ],
)
def test_a_jump_to_something_that_is_no_state(jump, error, message):
    with pytest.raises(error, match=message):
        odeint(decay, torch.ones(2, dtype=D), [0.0, 1.0], events=Event(level, jump=jump))


def test_inside_of_a_compiler():
    solve = torch.compile(
        lambda x0: odeint(decay, x0, [0.0, 1.0], events=Event(level)).x, fullgraph=True, backend="eager"
    )
    with pytest.raises(Exception, match=r"events: got .* inside torch.compile, where a solve is one program"):
        solve(torch.ones(2))
