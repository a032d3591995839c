"""Linear maps that are known by their products, and solvers for their systems of equations, sample by sample."""
