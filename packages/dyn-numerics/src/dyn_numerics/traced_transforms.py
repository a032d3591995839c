"""Transforms of `torch.func` within a loop that is being compiled.

The compiler writes the level of each transform into its program as a number, counted from the outermost. A loop that writes
into buffers is made functional by torch 2.13 with a transform around its body, so that all levels in it are one higher.
"""

from __future__ import annotations

import sys
from typing import Any

from torch._C._functorch import get_interpreter_stack

__all__ = ["find_levels_when_run"]

# What takes a level, and as which argument.
LEVEL_OF = {"_wrap_for_grad": 1, "_unwrap_for_grad": 1, "_add_batch_dim": 2, "_remove_batch_dim": 1}


def find_levels_when_run() -> None:
    """Has the body of a loop, or a branch, that has just been traced ask for the levels of its transforms whenever it runs.

    It is called inside of torch.compile, at the end of the body; the compiler does not look inside.
    """
    symbolic_convert: Any = sys.modules["torch._dynamo.symbolic_convert"]  # loaded by then; an import takes a second
    body = symbolic_convert.InstructionTranslator.current_tx().output.current_tracer.graph
    around = len(get_interpreter_stack() or ())
    begun: list[Any] = []
    for node in body.nodes:
        name = getattr(node.target, "__name__", "")
        if name.endswith("_increment_nesting"):
            begun.append(node)  # which returns the level
        elif name.endswith("_decrement_nesting"):
            begun.pop()
        elif name in LEVEL_OF and isinstance(node.args[LEVEL_OF[name]], int):
            place = LEVEL_OF[name]
            node.update_arg(place, begun[node.args[place] - around - 1])


# What torch.compiler.assume_constant_result sets, which would load the compiler here.
find_levels_when_run._dynamo_marked_constant = True  # type: ignore[attr-defined]
