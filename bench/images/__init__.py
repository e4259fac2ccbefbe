"""Real images: what a folder holds, and how it becomes batches. Naming these loads no framework."""

from __future__ import annotations

from bench.images.dataset import Dataset, find
from bench.images.faults import BadImage, Skipped, Stopped
from bench.images.pixels import normalised

__all__ = ["BadImage", "Dataset", "Skipped", "Stopped", "find", "normalised"]
