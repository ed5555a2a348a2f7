"""The machine: one module for each of its resources."""
