"""Formulas of training that need no framework: rates of learning, mixed images, averaged weights."""
