"""OpenVINO on the CPU, from the same ONNX model as ONNX Runtime: inference and eval.

Tuning   best: for convolutions below a batch of 8 the throughput hint, with as many requests in flight
         as it asks for (up to 1.2 times faster on ResNet-50); else the latency hint with one request,
         since handing a request to another thread costs 100 us, three times a small RNN layer.
         default: the latency hint with one request
16-bit   by the precision hint; what each node ran in is read from the compiled model
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from bench.cases.case import Case, Settings
from bench.cases.errors import Unavailable
from bench.cases.precision import PRECISIONS
from bench.graph import Graph
from bench.program import Arrays, Batches, Program, resident, turns

PACKAGE = "openvino"
DEVICES = ("cpu",)
MODES = ("inference", "eval")

THROUGHPUT_BELOW_BATCH = 8
# The nodes that do the work, by the names that OpenVINO's CPU plugin gives them.
WORK = ("FullyConnected", "MatMul", "Convolution", "RNNSeq", "RNNCell")
TYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}


def unsupported(precision: str, mode: str, device: str) -> Optional[str]:
    if precision in ("fp16m", "bf16m"):
        return f"openvino converts the weights with the arithmetic, so there is no {precision}"
    if mode == "eval" and precision != "fp32":
        return f"openvino would compute the loss in {precision} as well"
    return None


def environment(settings: Settings, device: str) -> Dict[str, str]:
    return {"OMP_NUM_THREADS": str(settings.threads)}


def version() -> str:
    import openvino

    return str(openvino.__version__)


def exported(graph: Graph, weights: Mapping[str, Any]) -> bytes:
    """The ONNX model of a graph, as a file has it."""
    from bench.backends._onnx import model as onnx_model

    return bytes(onnx_model.model(graph, weights).SerializeToString())


def compile(
    graph: Graph, weights: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]], case: Case, settings: Settings
) -> Program:
    import numpy as np
    import openvino as ov

    from bench.backends._onnx import model as onnx_model

    precision = PRECISIONS[case.precision].compute
    core = ov.Core()
    model = core.read_model(exported(graph, weights))
    images = any(node.op == "conv" for node in graph.nodes)
    many = settings.tuning == "best" and images and case.batch_size < THROUGHPUT_BELOW_BATCH
    many = many and not settings.min_latency
    hint = "THROUGHPUT" if many else "LATENCY"
    compiled = core.compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}[precision],
            "PERFORMANCE_HINT": hint,
            "INFERENCE_NUM_THREADS": str(settings.threads),
        },
    )
    count = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")) if many else 1
    requests = [compiled.create_infer_request() for _ in range(count)]
    names = ["output", "loss"][: len(compiled.outputs)]
    source: List[Iterator[Dict[str, Any]]] = []
    # The requests read these arrays in place: this keeps them alive.
    held: List[Dict[str, Any]] = []

    def native(batch: Mapping[str, Any]) -> Dict[str, Any]:
        return {k: onnx_model.native(v, np.float32) for k, v in batch.items()}

    def feed(batches: Batches) -> None:
        if settings.data != "synthetic":
            source[:] = [turns(batches, native)]
            return
        held[:] = map(native, resident(batches, 1))
        for request in requests:
            for name, array in held[0].items():
                request.set_tensor(name, ov.Tensor(array, shared_memory=True))

    def run_one() -> None:
        requests[0].infer()

    def run_many() -> None:
        for request in requests:
            request.start_async()
        for request in requests:
            request.wait()

    def run_moved() -> None:
        for request in requests:
            for name, array in next(source[0]).items():
                request.get_tensor(name).data[:] = array
            request.start_async()
        for request in requests:
            request.wait()
            for index in range(len(names)):
                request.get_output_tensor(index).data.copy()

    def outputs() -> Arrays:
        # The last request answers for all: they run one compiled model on the same inputs.
        return onnx_model.results({name: requests[-1].get_output_tensor(i).data for i, name in enumerate(names)})

    feed(inputs)
    inner = run_many if count > 1 else run_one
    run = inner if settings.data == "synthetic" else run_moved
    run()
    hidden = not graph.weights or any(node.op == "scan" for node in graph.nodes)
    if hidden and precision != "float32":
        raise Unavailable(f"not supported: openvino does not tell what {case.workload}'s loop ran in")
    ran = {precision} if hidden else _ran_in(compiled)
    if ran != {precision}:
        raise Unavailable(f"not supported: openvino ran {case.workload} in {', '.join(sorted(ran))}, not {precision}")
    return Program(
        run,
        feed,
        outputs,
        compute=", ".join(sorted(ran)),
        held=precision,
        batches=count,
        compute_only=inner,
        latencies=(lambda: [request.latency / 1e3 for request in requests]) if count > 1 else None,
        facts={"hint": hint, "requests": count},
    )


def _ran_in(compiled: Any) -> set[str]:
    """The types in which the nodes that do the work really ran."""
    found = set()
    for node in compiled.get_runtime_model().get_ops():
        info = node.get_rt_info()
        if info["layerType"].astype(str) in WORK:
            kind = info["runtimePrecision"].astype(str)
            found.add(TYPES.get(kind, kind))
    return found
