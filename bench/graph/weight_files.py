"""Weights from a file, checked against the graph: every name and every shape, or a line that says what is off.

numpy is imported inside of functions: the harness asks which files are weights at all, and must stay light.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping

from bench.graph import Graph

Array = Any
# What torch keeps beside the running statistics, and nothing here reads.
EXTRA = ("num_batches_tracked",)


def load(path: Path, graph: Graph, dtype: str) -> Dict[str, Array]:
    """Return every weight of `graph` from a file (.safetensors, .pt, .pth or .npz), rounded to `dtype`.

    The names are torchvision's. Raises ValueError in one line, naming the file and what is wrong with it: it cannot be
    read, or the first weights that do not fit.
    """
    import numpy as np

    from bench.graph import draws

    require_suffix(path)
    found = {name: array for name, array in _read(path).items() if not name.endswith(EXTRA)}
    wanted = {weight.name: weight.shape for weight in graph.weights}
    _require_none(path, "lacks", [name for name in wanted if name not in found])
    _require_none(path, "has, and the network does not,", [name for name in found if name not in wanted])
    wrong = [f"{n} {found[n].shape} for {shape}" for n, shape in wanted.items() if tuple(found[n].shape) != shape]
    _require_none(path, "has in another shape", wrong)
    _require_none(path, "has no real numbers in", [name for name in wanted if found[name].dtype.kind not in "fiu"])
    _require_none(path, "has numbers that are not finite in", [n for n in wanted if not np.isfinite(found[n]).all()])
    return {name: draws.rounded(found[name], dtype) for name in wanted}


def require_suffix(path: Path) -> None:
    """Raise ValueError where no reader takes a file of such a name."""
    if path.suffix not in READERS:
        raise ValueError(
            f"{path}: weights come as {', '.join(READERS)}, not {path.suffix or 'a file without a suffix'}"
        )


def _read(path: Path) -> Mapping[str, Array]:
    """The arrays of a file by name. A file of nonsense makes its reader raise anything."""
    try:
        return READERS[path.suffix](path)
    except ImportError:
        raise
    except Exception as error:  # noqa: BLE001 - pickles, archives and headers all fail in their own ways
        told = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{path} cannot be read: {told[0]}") from None


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
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise ValueError("no dictionary of tensors: save a model's state_dict()")
    return {name: tensor.detach().float().numpy() for name, tensor in state.items()}


READERS: Dict[str, Callable[[Path], Mapping[str, Array]]] = {
    ".safetensors": _safetensors,
    ".pt": _torch,
    ".pth": _torch,
    ".npz": _npz,
}
