"""An import-linter contract: what a package imports stands among the dependencies in its `pyproject.toml`."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from importlinter import Contract, ContractCheck, output

if TYPE_CHECKING:
    from grimp import ImportGraph

ROOT = Path(__file__).resolve().parent.parent


def declared(package: str) -> set[str]:
    """Returns the import names of what a package depends on, its extras included.

    They are the names of the distributions with underscores, which holds for all that are used here.
    """
    name = package.replace("_", "-")
    project = tomllib.loads((ROOT / "packages" / name / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project.get("optional-dependencies", {}).values()
    needs = [*project["dependencies"], *(need for extra in extras for need in extra)]
    return {re.split(r"[^\w.-]", need)[0].replace("-", "_") for need in needs}


class DeclaredImportsContract(Contract):
    """Fails on an import that works only because another dependency brings it."""

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Collects the imports of anything else."""
        undeclared = []
        for package in self.session_options["root_packages"]:
            known = {package, *declared(package), *sys.stdlib_module_names}
            modules = (module for module in graph.modules if module.split(".")[0] == package)
            imports = (
                (module, found) for module in modules for found in graph.find_modules_directly_imported_by(module)
            )
            undeclared += [f"{module} imports {found}" for module, found in imports if found.split(".")[0] not in known]
        return ContractCheck(kept=not undeclared, metadata={"undeclared": sorted(undeclared)})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Prints one line per import."""
        for line in check.metadata["undeclared"]:
            output.print_error(line, bold=False)
        output.new_line()
