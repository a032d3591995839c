"""Which tensors a vector field depends on besides its arguments.

An algorithm that runs its own backward solve must know them. Parameters of modules that a field holds are found here;
what is left over is found in the graph of a real evaluation and refused by name, so that no gradient is silently zero.
"""

from __future__ import annotations

import dis
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual
from torch.autograd.graph import Node, get_gradient_edge
from torch.nn.modules.batchnorm import _NormBase

from dyn_numerics.transforms import in_forward_mode

__all__ = [
    "Edge",
    "captured_buffers",
    "captured_modules",
    "captured_parameters",
    "edges",
    "outermost_modules",
    "reaches_others",
    "refuse_entangled",
    "refuse_tangents",
    "refuse_tangents_in",
    "refuse_undeclared",
    "unreached",
]

Edge = tuple[Node, int]
"""Where a differentiable tensor's gradient goes: a node, which several tensors may share, and its output."""

Path = tuple[Edge, "Path | None"]  # an edge, and how an output leads there
Named = tuple[str, Any]

ADVICE = "pass it as args=(...) and have it taken, or as params=(...), or use sensitivity='autograd'"
CONTAINERS = (list, tuple, set, frozenset, dict)


def captured_modules(f: Callable[..., Any]) -> Iterator[tuple[str, nn.Module]]:
    """Yields all modules that `f` is or holds, each once, those within modules too, with names for messages.

    Args:
        f: The field; it is searched as by `captured_parameters`.
    """
    seen: set[nn.Module] = set()
    for name, held in _held("f", f):
        if isinstance(held, nn.Module):
            for path, module in held.named_modules(memo=seen):
                yield f"{name}.{path}" if path else name, module


def captured_buffers(f: Callable[..., Any]) -> list[Tensor]:
    """Lists the buffers of all modules that `f` is or holds, but for what normalisation in training mode writes into."""
    modules = (module for _, module in captured_modules(f) if not (isinstance(module, _NormBase) and module.training))
    return [buffer for module in modules for buffer in module.buffers(recurse=False)]


def outermost_modules(f: Callable[..., Any]) -> list[nn.Module]:
    """Lists the modules that `f` is or holds, but for those that are parts of others."""
    modules = {id(held): held for _, held in _held("f", f) if isinstance(held, nn.Module)}
    parts = {id(part) for module in modules.values() for part in module.modules() if part is not module}
    return [module for key, module in modules.items() if key not in parts]


def captured_parameters(f: Callable[..., Any]) -> list[nn.Parameter]:
    """Lists the parameters that want gradients of all modules that `f` is or holds, each once.

    Modules are found in closures, default values, the globals that the code of a function names, bound methods and
    their objects, `functools.partial`, attributes of modules and of captured objects, and containers of these.
    """
    parameters = {}
    for _, held in _held("f", f):
        if isinstance(held, nn.Module):
            parameters.update({id(p): p for p in held.parameters() if p.requires_grad})
    return list(parameters.values())


def edges(tensors: Iterable[Tensor]) -> set[Edge]:
    """Where the gradients of differentiable tensors go."""
    return {_edge(tensor) for tensor in tensors}


def reaches_others(outputs: Iterable[Tensor], known: Iterable[Tensor]) -> bool:
    """Whether gradients of some outputs go anywhere else than to known tensors."""
    return _reaches_a_leaf(outputs, edges(known))


def unreached(outputs: Sequence[Tensor], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Lists the differentiable tensors that gradients of some outputs do not go to."""
    reached = edges(tensor for tensor in outputs if tensor.requires_grad)
    for (node, _), _ in _walk(outputs, edges(tensors)):
        reached.update((behind, output) for behind, output in node.next_functions if behind is not None)
    return [tensor for tensor in tensors if _edge(tensor) not in reached]


def refuse_undeclared(
    f: Callable[..., Any],
    outputs: Iterable[Tensor],
    declared: Iterable[Tensor],
    known: Set[Edge] = frozenset(),
    advice: str = ADVICE,
    others: Mapping[str, Callable[..., Any]] | None = None,
) -> None:
    """Refuses a field, or functions that act on its solution, whose outputs depend on differentiable tensors that nobody declared.

    Args:
        f: The field, searched for the names of what it captured.
        outputs: What came of it when it was evaluated with gradients enabled, its arguments detached.
        declared: The tensors that are known to the caller, the detached arguments among them.
        known: The edges of others that are.
        advice: What to do about it, for the message.
        others: Other functions of the user's that the outputs may depend on, by the names that users know them by.

    Raises:
        ValueError: If there are any; the message names them, and the functions that captured them.
    """
    outputs, stop_at = list(outputs), {*edges(declared), *known}
    if _reaches_a_leaf(outputs, stop_at):
        unknown = [path for path in _walk(outputs, stop_at) if _is_leaf(path)]
        functions = {"f": f, **(others or {})}
        names: dict[Edge, tuple[str, str]] = {}
        for owner, function in functions.items():
            for name, value in _held(owner, function):
                if _is_differentiable(value):
                    names.setdefault(_edge(value), (owner, name))
        found: dict[str, dict[str, None]] = {}
        for path in unknown:
            owner, name = _captured(path, names, " or ".join(functions))
            found.setdefault(owner, {})[name] = None
        captures = "; ".join(f"{owner}: captures {', '.join(tensors)}" for owner, tensors in found.items())
        raise ValueError(
            f"{captures}, expected what wants gradients to be an argument, in params or a parameter of a module that is "
            f"held; {advice}"
        )


def refuse_tangents(f: Callable[..., Any], args: Iterable[Any], name: str = "f") -> None:
    """Refuses forward-mode derivatives that reach a function past its state: reverse mode would drop them.

    Args:
        f: The field, or another function.
        args: Leaves of its further arguments.
        name: Its name.

    Raises:
        ValueError: If a tensor among the args, or that `f` holds, carries a tangent; the message names it.
    """
    if not in_forward_mode():
        return
    held = [(inner, value) for inner, value in _held(name, f) if isinstance(value, (Tensor, nn.Module))]
    parameters = [
        (f"{inner}.{key}", p) for inner, m in held if isinstance(m, nn.Module) for key, p in m.named_parameters()
    ]
    given = [(f"args[{i}]", leaf) for i, leaf in enumerate(args)]
    for inner, value in (*given, *held, *parameters):
        if isinstance(value, Tensor) and _has_tangent(value):
            raise ValueError(
                f"{name}: depends on {inner}, which carries a forward-mode derivative, expected none with a sensitivity that "
                f"computes in reverse mode; use sensitivity='autograd'"
            )


def refuse_tangents_in(name: str, leaves: Iterable[Any]) -> None:
    """Refuses an argument that carries forward-mode derivatives, as `refuse_tangents`.

    Args:
        name: Its name.
        leaves: What is in it.

    Raises:
        ValueError: If one does.
    """
    if in_forward_mode() and any(isinstance(leaf, Tensor) and _has_tangent(leaf) for leaf in leaves):
        raise ValueError(
            f"{name}: carries a forward-mode derivative, expected none with a sensitivity that computes in reverse mode; use "
            f"sensitivity='autograd'"
        )


def refuse_entangled(params: Sequence[Tensor], others: Sequence[Tensor]) -> None:
    """Refuses params that were computed from other differentiable inputs: their gradients would count twice.

    Args:
        params: Tensors that `f` captures.
        others: Everything that `f` captures and that wants gradients, `params` included.

    Raises:
        ValueError: If there are any.
    """
    for i, param in enumerate(params):
        rest = {_edge(tensor) for tensor in others if tensor is not param}
        if not param.is_leaf and any(edge in rest for edge, _ in _walk([param])):
            raise ValueError(
                f"params: got at index {i} a tensor of shape {list(param.shape)} that was computed from another one "
                f"that f captures, expected independent ones; have f take it as an argument and pass args=(...)"
            )


def _has_tangent(tensor: Tensor) -> bool:
    return unpack_dual(tensor).tangent is not None  # type: ignore[no-untyped-call]


def _held(name: str, value: Any, seen: set[int] | None = None) -> Iterator[Named]:
    """Yields a callable, object or container and everything that it holds, depth first, with names for messages."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    yield name, value
    for inner_name, inner in _contents(name, value):
        yield from _held(inner_name, inner, seen)


def _contents(name: str, value: Any) -> Iterable[Named]:
    if isinstance(value, functools.partial):
        positional = [(f"{name}.args[{i}]", inner) for i, inner in enumerate(value.args)]
        return [(name, value.func), *positional, *value.keywords.items()]
    if isinstance(value, MethodType):
        return [(name, value.__self__), (name, value.__func__)]
    if isinstance(value, FunctionType):
        return _function_captures(value).items()
    if isinstance(value, nn.Module):
        modules = [(f"{name}.{path}" if path else name, module) for path, module in value.named_modules()]
        return [inner for path, module in modules for inner in _module_attributes(path, module)]
    if isinstance(value, dict):
        return [(f"{name}[{key!r}]", inner) for key, inner in value.items() if _may_hold(inner)]
    if isinstance(value, CONTAINERS):
        return [(f"{name}[{i}]", inner) for i, inner in enumerate(value) if _may_hold(inner)]
    if isinstance(value, (Tensor, type, ModuleType)) or not hasattr(value, "__dict__"):
        return []
    return _attributes(name, vars(value))


def _attributes(name: str, attributes: dict[str, Any]) -> list[Named]:
    own = ("_parameters", "_buffers", "_modules")  # of a module, which are looked at by their names
    return [(f"{name}.{key}", value) for key, value in attributes.items() if _may_hold(value) and key not in own]


def _module_attributes(name: str, module: nn.Module) -> list[Named]:
    return _attributes(name, vars(module) | dict(module.named_buffers(recurse=False)))


def _may_hold(value: Any) -> bool:
    """Whether to look into something that was not captured itself; plain objects are left out, or it would not end."""
    return callable(value) or isinstance(value, Tensor) or (isinstance(value, CONTAINERS) and len(value) > 0)


def _function_captures(function: FunctionType) -> dict[str, Any]:
    """What the code of a function refers to beyond its arguments, by name."""
    known = function.__globals__
    own = known.get("__name__", "").partition(".")[0] == "torch"  # which holds nothing of a user's
    captures = {} if own else {name: known[name] for name in _global_names(function.__code__) if name in known}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            captures[name] = cell.cell_contents
        except ValueError:  # a cell that is not filled yet
            continue
    defaults = inspect.signature(function).parameters.values()
    captures.update({p.name: p.default for p in defaults if p.default is not inspect.Parameter.empty})
    return captures


@functools.lru_cache(maxsize=4096)
def _global_names(code: CodeType) -> frozenset[str]:
    """The globals that a piece of code reads, in nested functions and comprehensions too; not its attributes."""
    names = {str(i.argval) for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    nested = (_global_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return frozenset(names.union(*nested))


def _is_differentiable(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _edge(tensor: Tensor) -> Edge:
    """Where a differentiable tensor's gradient goes: a node, which several tensors may share, and its output."""
    edge = get_gradient_edge(tensor)
    return edge.node, edge.output_nr


def _reaches_a_leaf(outputs: Iterable[Tensor], stop_at: Set[Edge]) -> bool:
    """Whether the graph of the outputs leads to a leaf without passing `stop_at`; quick, since every evaluation asks."""
    ahead = [edge for edge in edges(tensor for tensor in outputs if tensor.requires_grad) if edge not in stop_at]
    seen = {node for node, _ in ahead}
    while ahead:
        node, _ = ahead.pop()
        if not (behind := node.next_functions) and hasattr(node, "variable"):
            return True
        for inner, output in behind:
            if inner is not None and inner not in seen and (inner, output) not in stop_at:
                seen.add(inner)
                ahead.append((inner, output))
    return False


def _walk(outputs: Iterable[Tensor], stop_at: Set[Edge] = frozenset()) -> Iterator[Path]:
    """Yields the edges of the outputs' graph, none twice, without passing `stop_at`."""
    seen = set(stop_at)
    ahead: list[Path] = [(_edge(tensor), None) for tensor in outputs if tensor.requires_grad]
    while ahead:
        path = ahead.pop()
        edge, _ = path
        if edge not in seen:
            seen.add(edge)
            yield path
            ahead.extend(((node, output), path) for node, output in edge[0].next_functions if node is not None)


def _is_leaf(path: Path) -> bool:
    (node, _), _ = path
    return hasattr(node, "variable")


def _captured(path: Path, names: dict[Edge, tuple[str, str]], owner: str) -> tuple[str, str]:
    """Who captured the first captured tensor on the way from an output to a leaf, and its name.

    Args:
        path: The way.
        names: What is known of captured tensors.
        owner: Who captured one of which nothing is known.
    """
    leaf: Any = path[0][0]
    found = owner, f"a tensor of shape {list(leaf.variable.shape)}"
    rest: Path | None = path
    while rest is not None:
        edge, rest = rest
        found = names.get(edge, found)
    return found
