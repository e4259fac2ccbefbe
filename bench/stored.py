"""Weights from a file, checked against the graph: every name and every shape, or a line that says what is off."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping

from bench import values
from bench.graph import Graph

Array = Any
# What torch keeps beside the running statistics, and nothing here reads.
EXTRA = ("num_batches_tracked",)


def load(path: Path, graph: Graph, dtype: str) -> Dict[str, Array]:
    """Return every weight of `graph` from a file (.safetensors, .pt, .pth or .npz), rounded to `dtype`.

    The names are torchvision's. Raises ValueError, naming the file and the first weights that do not fit.
    """
    if path.suffix not in READERS:
        raise ValueError(
            f"{path}: weights come as {', '.join(READERS)}, not {path.suffix or 'a file without a suffix'}"
        )
    found = {name: array for name, array in READERS[path.suffix](path).items() if not name.endswith(EXTRA)}
    wanted = {weight.name: weight.shape for weight in graph.weights}
    _require_none(path, "lacks", [name for name in wanted if name not in found])
    _require_none(path, "has, and the network does not,", [name for name in found if name not in wanted])
    wrong = [f"{n} {found[n].shape} for {shape}" for n, shape in wanted.items() if tuple(found[n].shape) != shape]
    _require_none(path, "has in another shape", wrong)
    return {name: values.rounded(found[name], dtype) for name in wanted}


def _require_none(path: Path, what: str, names: List[str]) -> None:
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise ValueError(f"{path} {what} {', '.join(names[:3])}{more}")


def _npz(path: Path) -> Mapping[str, Array]:
    import numpy as np

    with np.load(str(path)) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _safetensors(path: Path) -> Mapping[str, Array]:
    from safetensors.numpy import load_file

    found: Dict[str, Array] = load_file(str(path))
    return found


def _torch(path: Path) -> Mapping[str, Array]:
    import torch

    state = torch.load(str(path), map_location="cpu", weights_only=True)
    return {name: tensor.float().numpy() for name, tensor in state.items() if hasattr(tensor, "numpy")}


READERS: Dict[str, Callable[[Path], Mapping[str, Array]]] = {
    ".safetensors": _safetensors,
    ".pt": _torch,
    ".pth": _torch,
    ".npz": _npz,
}
