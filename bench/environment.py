"""Variables of the environment that change a rate, and that nobody names on the command line.

They are recorded, and a baseline must match them: with `TF_ENABLE_ONEDNN_OPTS=0` TensorFlow is another program. Those
that place threads are removed: they would move a worker from the cores that its record names.
"""

from __future__ import annotations

import os
from typing import Dict, Mapping, Optional, Set

# By the first letters of their names: threads and their places, libraries of kernels, compilers, frameworks, devices
# and allocators.
PREFIXES = (
    *("OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_", "GOTO_", "BLIS_", "VECLIB_", "NUMEXPR_"),
    *("ONEDNN_", "DNNL_", "XNNPACK_", "TBB_", "OV_", "OPENVINO_", "ORT_"),
    *(
        "TF_ENABLE_",
        "TF_DISABLE_",
        "TF_NUM_",
        "TF_XLA_",
        "TF_GPU_",
        "TF_CUDNN_",
        "TF_USE_",
        "TF_DETERMINISTIC_",
        "TF2_",
    ),
    *("XLA_", "JAX_", "TORCH_", "TORCHINDUCTOR_", "TORCHDYNAMO_", "PYTORCH_", "ATEN_", "TRITON_"),
    *("CUDA_", "CUDNN_", "CUBLAS_", "NVIDIA_TF32_OVERRIDE", "NCCL_", "GLOO_"),
    *("LD_PRELOAD", "MALLOC_", "TCMALLOC_", "JEMALLOC_", "MIMALLOC_", "GLIBC_TUNABLES", "NPY_"),
)
# These choose a device, which is recorded by itself, or say what is logged.
HARMLESS = ("CUDA_VISIBLE_DEVICES", "TORCHINDUCTOR_CACHE_DIR", "TORCH_LOGS", "TORCH_SHOW", "ONEDNN_VERBOSE")
# By these the runtimes of OpenMP (GNU's and LLVM's) place threads, whatever cores a process is bound to.
PLACING = ("GOMP_CPU_AFFINITY", "KMP_AFFINITY", "KMP_HW_SUBSET", "OMP_PLACES", "OMP_PROC_BIND")

# What the suite has set in this process, by the settings of a case; and what it found besides, and removed.
_set_here: Set[str] = set()
_found: Dict[str, str] = {}
_looked = False
_removed: Dict[str, str] = {}


def use(variables: Mapping[str, str]) -> None:
    """Set variables that follow from the settings of a case, and remove those that place threads, before a framework is
    loaded: frameworks set some too."""
    global _looked
    _removed.update({name: os.environ.pop(name) for name in PLACING if name in os.environ})
    _set_here.update(variables)
    if not _looked:
        _looked = True
        _found.update({name: value for name, value in os.environ.items() if _matters(name)})
    os.environ.update(variables)


def found() -> Optional[str]:
    """The variables that change a rate and that the suite did not set, as `NAME=value` with spaces between; None: there
    are none."""
    return " ".join(f"{name}={_found[name]}" for name in sorted(_found) if name not in _set_here) or None


def removed() -> Optional[Dict[str, str]]:
    """The variables that were removed, with their values; None: there are none."""
    return dict(_removed) or None


def _matters(name: str) -> bool:
    return name.startswith(PREFIXES) and not name.startswith(HARMLESS)
