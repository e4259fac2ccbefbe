"""Weights from a file. Every name and shape is checked against the graph.

numpy is imported within functions: the harness checks the suffixes of files, and must start fast.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping

from bench.graph import Graph

Array = Any
# Counters that torch stores beside the running statistics; nothing here reads them.
IGNORED = ("num_batches_tracked",)


def load(path: Path, graph: Graph, dtype: str) -> Dict[str, Array]:
    """Return every weight of `graph` from a file (.safetensors, .pt, .pth or .npz), rounded to `dtype`.

    The names are torchvision's. Raises ValueError, in one line with the name of the file, if it cannot be read, or if
    names, shapes or values of weights do not fit.
    """
    import numpy as np

    from bench.graph import draws

    require_suffix(path)
    arrays = {name: array for name, array in _read(path).items() if not name.endswith(IGNORED)}
    shapes = {weight.name: weight.shape for weight in graph.weights}
    _require_none(path, "lacks", [name for name in shapes if name not in arrays])
    _require_none(path, "has, and the network does not,", [name for name in arrays if name not in shapes])
    wrong = [f"{n} {arrays[n].shape} for {shape}" for n, shape in shapes.items() if tuple(arrays[n].shape) != shape]
    _require_none(path, "has in another shape", wrong)
    _require_none(path, "has no real numbers in", [name for name in shapes if arrays[name].dtype.kind not in "fiu"])
    _require_none(path, "has numbers that are not finite in", [n for n in shapes if not np.isfinite(arrays[n]).all()])
    return {name: draws.rounded(arrays[name], dtype) for name in shapes}


def require_suffix(path: Path) -> None:
    """Raise ValueError for a file whose suffix no reader knows."""
    if path.suffix not in READERS:
        raise ValueError(
            f"{path}: weights come as {', '.join(READERS)}, not {path.suffix or 'a file without a suffix'}"
        )


def _read(path: Path) -> Mapping[str, Array]:
    """The arrays of a file by name. A corrupt file makes its reader raise any exception, which becomes a ValueError."""
    try:
        return READERS[path.suffix](path)
    except ImportError:
        raise
    except Exception as error:  # noqa: BLE001 - pickles, archives and headers all fail in their own ways
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{path} cannot be read: {lines[0]}") from None


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

    arrays: Dict[str, Array] = load_file(str(path))
    return arrays


def _torch(path: Path) -> Mapping[str, Array]:
    import torch

    state = torch.load(str(path), map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise ValueError("no dictionary of tensors: save a model's state_dict()")
    return {name: tensor.detach().float().numpy() for name, tensor in state.items()}


READERS: Dict[str, Callable[[Path], Mapping[str, Array]]] = {
    ".safetensors": _safetensors,
    ".pt": _torch,
    ".pth": _torch,
    ".npz": _npz,
}
