"""Use cases, as lists of steps."""
