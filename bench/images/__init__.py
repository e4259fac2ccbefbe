"""Folders of images, and the batches made from them. Importing this package imports neither a framework nor numpy."""

from __future__ import annotations

from bench.images.dataset import Dataset, find
from bench.images.faults import BadImage, Skipped, Stopped

__all__ = ["BadImage", "Dataset", "Skipped", "Stopped", "find"]
