"""An import-linter contract: which packages from outside this repository a package of it may import."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, cast

from importlinter import Contract, ContractCheck, fields, output

if TYPE_CHECKING:
    from grimp import ImportGraph


class OnlyExternalsContract(Contract):
    """Fails on an import of anything but the standard library and what `allowed` lists.

    The built-in `forbidden` contract is a list of what must not be imported, and so never complete.
    """

    packages = fields.ListField(subfield=fields.StringField())
    allowed = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Collects the imports of anything else."""
        # The declared fields become lists of strings when the contract is read.
        packages, allowed = cast("list[str]", self.packages), cast("list[str]", self.allowed)
        known = {*self.session_options["root_packages"], *allowed, *sys.stdlib_module_names}
        strangers = sorted(
            f"{module} imports {imported}"
            for module in graph.modules
            if module.split(".")[0] in packages
            for imported in graph.find_modules_directly_imported_by(module)
            if imported.split(".")[0] not in known
        )
        return ContractCheck(kept=not strangers, metadata={"strangers": strangers})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Prints one line per import."""
        for stranger in check.metadata["strangers"]:
            output.print_error(stranger, bold=False)
        output.new_line()
