"""What the tests of root searches share."""

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded():
    """Networks that are made in a test are the same every time."""
    torch.manual_seed(0)
