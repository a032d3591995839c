import math

import numpy as np

from dyn_numerics.ode.arguments import step_limit


def test_limits_of_the_number_of_steps():
    assert step_limit(None, adaptive=True) == 100_000
    assert step_limit(None, adaptive=False) == math.inf
    assert step_limit(7, adaptive=False) == step_limit(np.int64(7), adaptive=True) == 7
