"""Formulas of training that need no framework: learning rates, mixing of images, averages of weights."""
