"""An import-linter contract: a module whose name starts with an underscore is not imported from another package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from importlinter import Contract, ContractCheck, output

if TYPE_CHECKING:
    from grimp import ImportGraph


class PrivateModulesContract(Contract):
    """Fails on `from dyn_numerics._x import y` anywhere outside `dyn_numerics`.

    The built-in `protected` contract wants the modules listed by name; a new one would be forgotten.
    """

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Collects the imports that reach into another package."""
        crossings = sorted(
            f"{importer} imports {module}"
            for module in graph.modules
            if any(part.startswith("_") and not part.startswith("__") for part in module.split("."))
            for importer in graph.find_modules_that_directly_import(module)
            if importer.split(".")[0] != module.split(".")[0]
        )
        return ContractCheck(kept=not crossings, metadata={"crossings": crossings})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Prints one line per crossing."""
        for crossing in check.metadata["crossings"]:
            output.print_error(crossing, bold=False)
        output.new_line()
