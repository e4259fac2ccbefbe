"""Weights from a file. Every name and shape is checked against the graph.

Names    torchvision's. A prefix that all names share is left out, if it is one that PyTorch's wrappers add
Nested   of a checkpoint, its only dictionary of weights is taken
Types    floats of 16 bits or more, and integers

numpy is imported within functions: the harness checks the suffixes of files, and must start fast.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Tuple

from bench import signatures
from bench.graph import Graph

Array = Any
# Counters that torch stores beside the running statistics and average weights; nothing here reads them.
IGNORED = ("num_batches_tracked", "n_averaged")
# Of DataParallel, torch.compile and Lightning.
PREFIXES = ("module.", "_orig_mod.", "model.")
# Numbers of safetensors by numpy's names; bf16 has none.
SAFETENSORS = {"F64": "f8", "F32": "f4", "F16": "f2", "BOOL": "?"}
SAFETENSORS.update({f"{kind}{8 * size}": f"{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)})
# In place of a number of 8 bits or fewer, which is not read.
UNREAD = "V1"


class Weights(NamedTuple):
    """Weights by name, and how names in the file differ from those of the network; empty: they do not."""

    arrays: Dict[str, Array]
    note: str


# The arrays of a file by name, and a note.
Stored = Tuple[Mapping[str, Array], str]


def load(path: Path, graph: Graph, dtype: str) -> Weights:
    """Return every weight of `graph` from a file (.safetensors, .pt, .pth or .npz), rounded to `dtype`.

    Raises ValueError in one line, naming the file and what is wrong with it: it cannot be read, or the first weights
    that do not fit.
    """
    import numpy as np

    from bench.graph import draws

    require_suffix(path)
    stored, nested = _read(path)
    wanted = {weight.name: weight.shape for weight in graph.weights}
    prefix = _prefix([name for name in stored if not name.endswith(IGNORED)], wanted)
    arrays = {name[len(prefix) :]: array for name, array in stored.items() if not name.endswith(IGNORED)}
    raw = {name: array.dtype.itemsize for name, array in arrays.items() if array.dtype.kind == "V"}
    few = "has numbers of 8 bits or fewer, which need scales that are not known here (store bf16, fp16 or fp32), in"
    _require_none(path, few, [name for name, size in raw.items() if size == 1])
    _require_none(path, "has bytes without a type (numpy has no bf16; store fp16 or fp32) in", list(raw))
    _require_none(path, "lacks", [name for name in wanted if name not in arrays])
    _require_none(path, "has, and the network does not,", [name for name in arrays if name not in wanted])
    wrong = [f"{n} {arrays[n].shape} for {shape}" for n, shape in wanted.items() if tuple(arrays[n].shape) != shape]
    _require_none(path, "has in another shape", wrong)
    _require_none(path, "has no real numbers in", [name for name in wanted if arrays[name].dtype.kind not in "fiu"])
    _require_none(path, "has numbers that are not finite in", [n for n in wanted if not np.isfinite(arrays[n]).all()])
    note = "; ".join(filter(None, [nested, prefix and f"without the prefix {prefix} of its names"]))
    rounded = {name: draws.rounded(arrays[name], dtype) for name in wanted}
    return Weights(rounded, f"weights are those of {path.name}, {note}" if note else "")


def _prefix(names: List[str], wanted: Iterable[str]) -> str:
    """The prefix that wrappers have added to all names; none if names of the network begin so."""
    prefix, longer = "", list(filter(lambda one: not any(name.startswith(one) for name in wanted), PREFIXES))
    while names:
        shared = [one for one in longer if all(name.startswith(prefix + one) for name in names)]
        if not shared:
            break
        prefix += shared[0]
    return prefix


def require_suffix(path: Path) -> None:
    """Raise ValueError for a file whose suffix no reader knows."""
    if path.suffix not in READERS:
        raise ValueError(
            f"{path}: weights come as {', '.join(READERS)}, not {path.suffix or 'a file without a suffix'}"
        )


def _read(path: Path) -> Stored:
    """The arrays of a file by name. A corrupt file makes its reader raise any exception, which becomes a ValueError."""
    try:
        return READERS[path.suffix](path)
    except ImportError:
        raise
    except Exception as error:  # noqa: BLE001 - pickles, archives and headers all fail in their own ways
        raise ValueError(f"{path} {_reason(path, error)}") from None


def _reason(path: Path, error: Exception) -> str:
    """Why a file could not be read."""
    try:
        with path.open("rb") as file:
            content = signatures.description(file.read(signatures.HEAD))
    except OSError as unreadable:
        return f"cannot be read: {unreadable.strerror}"
    if content:
        return f"is {content}"
    text = str(error).strip()
    objects = re.search(r"Unsupported (?:global: GLOBAL|class) (\S+)", text)
    if objects:
        return (
            f"cannot be read: it is a pickle of Python objects ({objects[1]}), such as a whole model, and loading them"
            " would run code; save model.state_dict() alone"
        )
    if "TorchScript" in text:
        return "cannot be read: it is a TorchScript program; save the model's state_dict() instead"
    return f"cannot be read: {text.splitlines()[0] if text else type(error).__name__}"


def _require_none(path: Path, what: str, names: List[str]) -> None:
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise ValueError(f"{path} {what} {', '.join(names[:3])}{more}")


def _npz(path: Path) -> Stored:
    import numpy as np

    with np.load(str(path)) as arrays:
        return {name: arrays[name] for name in arrays.files}, ""


def _safetensors(path: Path) -> Stored:
    from safetensors import deserialize

    tensors = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    return {name: _safetensor(**tensor) for name, tensor in tensors}, ""


def _safetensor(dtype: str, shape: List[int], data: bytes) -> Array:
    import numpy as np

    if dtype == "BF16":
        # The upper half of a float32.
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    if dtype not in SAFETENSORS:
        return np.empty(shape, UNREAD)
    return np.frombuffer(data, np.dtype(SAFETENSORS[dtype]).newbyteorder("<")).reshape(shape)


def _torch(path: Path) -> Stored:
    import torch

    with warnings.catch_warnings():
        # For TorchScript, which is refused.
        warnings.simplefilter("ignore")
        content = torch.load(str(path), map_location="cpu", weights_only=True)
    states = _states(content, "")
    if not states:
        raise ValueError("no dictionary of tensors: save a model's state_dict()")
    if len(states) > 1:
        raise ValueError(f"it holds several sets of weights, {', '.join(states)}; save one of them")
    ((name, state),) = states.items()
    return {key: _tensor(tensor) for key, tensor in state.items()}, name and f"its entry {name}"


def _states(content: Any, name: str) -> Dict[str, Mapping[str, Any]]:
    """The dictionaries of weights in a checkpoint, by dotted name. Unlike an optimiser's, their names have dots."""
    import torch

    if not isinstance(content, dict) or not content:
        return {}
    tensors = all(isinstance(tensor, torch.Tensor) for tensor in content.values())
    if tensors and (not name or any("." in str(key) for key in content)):
        return {name: content}
    states = (_states(entry, f"{name}.{key}" if name else str(key)) for key, entry in content.items())
    return {key: state for found in states for key, state in found.items()}


def _tensor(tensor: Any) -> Array:
    import numpy as np

    if tensor.is_floating_point() and tensor.element_size() == 1:
        return np.empty(tuple(tensor.shape), UNREAD)
    # A conversion to float would drop the imaginary part.
    array = tensor.detach() if tensor.is_complex() else tensor.detach().float()
    return array.numpy()


READERS: Dict[str, Callable[[Path], Stored]] = {
    ".safetensors": _safetensors,
    ".pt": _torch,
    ".pth": _torch,
    ".npz": _npz,
}
