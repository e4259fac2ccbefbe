"""The peak of a device, measured with library kernels: matrix products, convolutions and copies.

The peak is the best rate over a few sizes and repeats. It is what a library reaches, not the data sheet's figure.
"""

from __future__ import annotations

from functools import partial
from time import perf_counter
from typing import Any, Callable, Dict, Sequence

PRODUCT_SIDES = (512, 1024, 2048)
COPY_BYTES = (1 << 18, 1 << 22, 1 << 26, 1 << 29)
SECONDS_A_KERNEL = 0.25


def best_s(wait: Callable[[], None], run: Callable[..., Any], *args: Any) -> float:
    """The seconds of the fastest of many warmed-up runs of `run(*args)`. `wait` blocks until the device is done."""
    run(*args)
    wait()
    best, begin = float("inf"), perf_counter()
    while perf_counter() - begin < SECONDS_A_KERNEL:
        start = perf_counter()
        run(*args)
        wait()
        best = min(best, perf_counter() - start)
    return best


def with_torch(device: str, dtype_names: Sequence[str], threads: int) -> Dict[str, Any]:
    """The peak of a device with torch: flops per second in the fastest of the types, and bytes per second by the size
    of the working set."""
    import torch

    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    wait = torch.cuda.synchronize if device == "cuda" else _nothing
    bandwidth = {}
    with torch.inference_mode():
        flops = max(_torch_flops(device, getattr(torch, name), wait) for name in dtype_names)
        for size in COPY_BYTES:
            source = torch.ones(size // 8, device=device)
            target = torch.empty_like(source)
            matrix = torch.ones(size // 4 // 256, 256, device=device)
            vector = torch.ones(256, device=device)
            copied = size / best_s(wait, target.copy_, source)
            read = size / best_s(wait, torch.mv, matrix, vector)
            bandwidth[str(size)] = max(copied, read)
    return {"flops": flops, "bandwidth_bytes_per_s": bandwidth, "library": f"torch {torch.__version__}"}


def _torch_flops(device: str, dtype: Any, wait: Callable[[], None]) -> float:
    """The best rate of matrix products and of a convolution, in flops per second."""
    import torch

    flops = 0.0
    for side in PRODUCT_SIDES if device == "cpu" else (*PRODUCT_SIDES, 8192):
        a = torch.randn(side, side, device=device).to(dtype)
        b = torch.randn(side, side, device=device).to(dtype)
        out = torch.empty(side, side, device=device, dtype=dtype)
        flops = max(flops, 2 * side**3 / best_s(wait, partial(torch.mm, out=out), a, b))
    conv = torch.nn.Conv2d(256, 256, 3, padding=1, device=device, dtype=dtype)
    conv = conv.to(memory_format=torch.channels_last)
    image = torch.randn(16, 256, 14, 14, device=device).to(dtype).to(memory_format=torch.channels_last)
    return float(max(flops, 2 * 16 * 14 * 14 * 256 * 256 * 9 / best_s(wait, conv, image)))


def with_numpy() -> Dict[str, Any]:
    """The fp32 peak of the CPU with numpy, for machines without torch."""
    import numpy as np

    flops, bandwidth = 0.0, {}
    for side in PRODUCT_SIDES:
        square: Any = np.ones((side, side), np.float32)
        product = partial(np.matmul, out=np.empty_like(square))
        flops = max(flops, 2 * side**3 / best_s(_nothing, product, square, square))
    for size in COPY_BYTES:
        source: Any = np.ones(size // 8, np.float32)
        target = np.empty_like(source)
        matrix: Any = np.ones((size // 4 // 256, 256), np.float32)
        vector: Any = np.ones(256, np.float32)
        copied = size / best_s(_nothing, np.copyto, target, source)
        read = size / best_s(_nothing, np.matmul, matrix, vector)
        bandwidth[str(size)] = max(copied, read)
    return {"flops": flops, "bandwidth_bytes_per_s": bandwidth, "library": f"numpy {np.__version__}"}


def _nothing() -> None:
    pass
