"""Events: conditions that a solve watches for."""
