"""Backends: a module that lowers a Graph to a Program in one framework. bench/backend.py states the
contract. Frameworks are imported inside functions, so that naming a backend loads nothing."""
