"""Real images: what a folder holds, and how it becomes batches. Naming these loads no framework, and no numpy."""

from __future__ import annotations

from bench.images.dataset import Dataset, find
from bench.images.faults import BadImage, Skipped, Stopped

__all__ = ["BadImage", "Dataset", "Skipped", "Stopped", "find"]
