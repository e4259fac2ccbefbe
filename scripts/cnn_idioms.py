"""Compares ResNet-50 inference of the suite with hand-written programs in each framework.

    python scripts/cnn_idioms.py [--backend torch|onnxruntime|openvino] [--batch 16] [--precision bf16] [--repeats 8]

torch         a hand-written ResNet-50, channels-last, compiled and frozen like the suite's
onnxruntime   a plain `session.run` loop on the ONNX file that the suite exports
openvino      OpenVINO's benchmark_app on that file, with the same requests and threads
Prints the median and range of the ratios of rates, suite / hand-written, measured in turn (A B B A).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any, Callable, Tuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.harness_cost import bare, paired, show  # noqa: E402

SECONDS = 3.0
BLOCKS = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=tuple(BY_HAND), default="torch")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        options.file = str(Path(folder) / "resnet50.onnx")
        suite, by_hand = pair(options)
        name = f"resnet50 {options.backend} batch {options.batch} {options.precision}, {options.threads} threads"
        show(name, paired(by_hand, suite, options.repeats))


def pair(options: argparse.Namespace) -> Tuple[Callable[[], float], Callable[[], float]]:
    """Two functions that measure the seconds of a step: of the suite, and of the hand-written program."""
    from bench import backends, workloads
    from bench.cases.case import Case, Settings
    from bench.graph import draws

    settings = Settings(threads=options.threads)
    backend = backends.load(options.backend)
    os.environ.update(backend.environment(settings, "cpu"))
    module = workloads.load("resnet50")
    size = next(iter(workloads.named_sizes(module).values()))
    dimensions = {key: size[key] for key in module.dimensions}
    case = Case(
        "resnet50", "i224", dimensions, "inference", options.batch, options.precision, 1, options.backend, "cpu"
    )
    graph = workloads.of_case(case)
    weights = draws.weights(graph, "float32")
    program = backend.compile(graph, weights, [draws.inputs(graph, "float32")], case, settings)
    by_hand = BY_HAND[options.backend](options, graph, weights, program)
    for _ in range(3):
        program.run()
    return lambda: bare(program.run, SECONDS) / program.batches, by_hand


def torch_by_hand(options: argparse.Namespace, graph: Any, weights: Any, program: Any) -> Callable[[], float]:
    import torch
    from torch import nn

    class Bottleneck(nn.Module):
        def __init__(self, inner: int, width: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(inner, width, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.conv3 = nn.Conv2d(width, width * 4, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(width * 4)
            self.relu = nn.ReLU(inplace=True)
            self.downsample = nn.Identity()
            if stride > 1 or inner != width * 4:
                conv = nn.Conv2d(inner, width * 4, 1, stride, bias=False)
                self.downsample = nn.Sequential(conv, nn.BatchNorm2d(width * 4))

        def forward(self, x: Any) -> Any:
            y = self.relu(self.bn1(self.conv1(x)))
            y = self.relu(self.bn2(self.conv2(y)))
            return self.relu(self.bn3(self.conv3(y)) + self.downsample(x))

    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    layers.append(nn.MaxPool2d(3, 2, 1))
    inner = 64
    for depth, width, stride in BLOCKS:
        for index in range(depth):
            layers.append(Bottleneck(inner, width, 1 if index else stride))
            inner = width * 4
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000)]
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[options.precision]
    model = nn.Sequential(*layers).eval().to(kind).to(memory_format=torch.channels_last)
    x = torch.rand(options.batch, 3, 224, 224, dtype=kind).to(memory_format=torch.channels_last)
    torch._inductor.config.freezing = True
    compiled = torch.compile(model, dynamic=False)

    def run() -> None:
        with torch.no_grad():
            compiled(x)

    for _ in range(3):
        run()
    return lambda: bare(run, SECONDS)


def onnxruntime_bare(options: argparse.Namespace, graph: Any, weights: Any, program: Any) -> Callable[[], float]:
    import numpy as np
    import onnxruntime as ort

    session_options = ort.SessionOptions()
    session_options.intra_op_num_threads = options.threads
    session = ort.InferenceSession(exported(options, graph, weights), session_options)
    inputs = {session.get_inputs()[0].name: np.random.rand(options.batch, 3, 224, 224).astype(np.float32)}
    return lambda: bare(lambda: session.run(None, inputs), SECONDS)


def openvino_app(options: argparse.Namespace, graph: Any, weights: Any, program: Any) -> Callable[[], float]:
    path = exported(options, graph, weights)
    requests = program.facts["requests"]
    app = shutil.which("benchmark_app") or str(Path(sys.executable).parent / "benchmark_app")
    kind = {"fp32": "f32", "bf16": "bf16"}[options.precision]
    # benchmark_app accepts these numbers only without a hint. The throughput hint also has one stream for each request.
    command = [app, "-m", path, "-d", "CPU", "-hint", "none", "-nireq", str(requests), "-nstreams", str(requests)]
    command += ["-infer_precision", kind, "-nthreads", str(options.threads), "-t", str(int(SECONDS))]
    command += ["-api", "sync" if requests == 1 else "async"]

    def seconds() -> float:
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        count = int(re.search(r"Count:\s+(\d+)", text)[1])  # type: ignore[index]
        return float(re.search(r"Duration:\s+([\d.]+)", text)[1]) / 1e3 / count  # type: ignore[index]

    return seconds


def exported(options: argparse.Namespace, graph: Any, weights: Any) -> str:
    from bench import backends

    Path(options.file).write_bytes(backends.load(options.backend).exported(graph, weights))  # type: ignore[attr-defined]
    return str(options.file)


BY_HAND = {"torch": torch_by_hand, "onnxruntime": onnxruntime_bare, "openvino": openvino_app}

if __name__ == "__main__":
    start = perf_counter()
    main()
    print(f"  {perf_counter() - start:.0f} s", file=sys.stderr)
