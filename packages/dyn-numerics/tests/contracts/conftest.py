"""How the tests of this folder run a contract."""

from unittest import SkipTest

import pytest


def broken_promises(contract):
    """The names of the tests of a contract that fail."""
    failed = set()
    for name in dir(contract):
        if name.startswith("test_"):
            try:
                getattr(contract(), name)()
            except SkipTest:
                continue
            except Exception:
                failed.add(name.removeprefix("test_"))
    return failed


@pytest.fixture(name="broken_promises", scope="session")
def broken_promises_fixture():
    return broken_promises
