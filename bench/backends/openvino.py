"""OpenVINO on the CPU, from the same ONNX model as ONNX Runtime: inference and eval.

Tuning   best: the throughput hint for convolutions with a batch size below 8, with the number of requests in
         flight that OpenVINO calls optimal (up to 1.2 times faster on ResNet-50). Otherwise the latency hint with one
         request: passing a request to another thread costs 100 us, three times as much as a small RNN layer.
         default: the latency hint with one request
16-bit   by the precision hint; the precision of each node is then read from the compiled model
"""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Set, Tuple

from bench.backends._onnx import exported
from bench.backends._onnx.primitives import PRIMITIVES
from bench.cases.case import Case, Settings
from bench.cases.errors import Unavailable
from bench.cases.precision import PRECISIONS
from bench.graph import Graph
from bench.program import Arrays, Program

PACKAGE = "openvino"
DEVICES = ("cpu",)
MODES = ("inference", "eval")

__all__ = ["DEVICES", "MODES", "PACKAGE", "PRIMITIVES", "compile", "environment", "exported", "unsupported", "version"]

THROUGHPUT_BELOW_BATCH = 8
# The nodes that do nearly all arithmetic, by the names of OpenVINO's CPU plugin.
WORK = ("FullyConnected", "MatMul", "Convolution", "RNNSeq", "RNNCell")
# The nodes that compute nothing.
IDLE = ("Input", "Output", "Const")
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


def compile(
    graph: Graph, weights: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]], case: Case, settings: Settings
) -> Program:
    compiled, facts = _compiled(graph, weights, case, settings)
    kind = _OneRequest if facts["requests"] == 1 else _Requests
    return kind(graph, case, settings, compiled, facts).started(inputs)


def _compiled(graph: Graph, weights: Mapping[str, Any], case: Case, settings: Settings) -> Tuple[Any, Dict[str, Any]]:
    """The compiled model, and its tuning: the hint and the number of requests."""
    import openvino as ov

    images = any(node.op == "conv" for node in graph.nodes)
    many = settings.tuning == "best" and images and case.batch_size < THROUGHPUT_BELOW_BATCH
    many = many and not settings.min_latency
    hint = "THROUGHPUT" if many else "LATENCY"
    core = ov.Core()
    precision = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}[PRECISIONS[case.precision].compute]
    options = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": hint,
        "INFERENCE_NUM_THREADS": str(settings.threads),
    }
    compiled = core.compile_model(core.read_model(exported(graph, weights)), "CPU", options)
    count = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")) if many else 1
    return compiled, {"hint": hint, "requests": count}


class _Requests(Program):
    """A compiled model with several requests, which run concurrently."""

    def __init__(self, graph: Graph, case: Case, settings: Settings, compiled: Any, facts: Dict[str, Any]) -> None:
        import openvino as ov

        from bench.backends._onnx import model

        super().__init__(graph, case, settings)
        self.ov, self.onnx_model = ov, model
        self.compiled, self.facts = compiled, facts
        self.batches_in_flight = facts["requests"]
        self.requests = [compiled.create_infer_request() for _ in range(self.batches_in_flight)]
        self.names = ["output", "loss"][: len(compiled.outputs)]
        self.arrays: Arrays = {}

    def convert(self, batch: Mapping[str, Any]) -> Arrays:
        return {name: self.onnx_model.native(array, "float32") for name, array in batch.items()}

    def keep(self, batches: Iterable[Arrays]) -> None:
        # The requests read these arrays in place, so they must stay alive.
        (self.arrays,) = batches
        for request in self.requests:
            for name, array in self.arrays.items():
                request.set_tensor(name, self.ov.Tensor(array, shared_memory=True))

    def run_resident(self) -> None:
        for request in self.requests:
            request.start_async()
        for request in self.requests:
            request.wait()

    def run_moved(self) -> None:
        for request in self.requests:
            for name, array in next(self.batches).items():
                request.get_tensor(name).data[:] = array
            request.start_async()
        for request in self.requests:
            request.wait()
            for index in range(len(self.names)):
                request.get_output_tensor(index).data.copy()

    def outputs(self) -> Arrays:
        # All requests run the same model on the same inputs, so the last one stands for all.
        tensors = {name: self.requests[-1].get_output_tensor(index) for index, name in enumerate(self.names)}
        return self.onnx_model.results({name: tensor.data for name, tensor in tensors.items()})

    def latencies(self) -> List[float]:
        return [request.latency / 1e3 for request in self.requests]

    def dtypes(self) -> Tuple[str, str]:
        precision, workload = PRECISIONS[self.case.precision].compute, self.case.workload
        hidden = not self.graph.weights or any(node.op == "scan" for node in self.graph.nodes)
        if hidden and precision != "float32":
            raise Unavailable(f"not supported: openvino does not report the precision of {workload}'s loop")
        ran = {precision} if hidden else _ran_in(self.compiled)
        if ran != {precision}:
            raise Unavailable(f"not supported: openvino ran {workload} in {', '.join(sorted(ran))}, not {precision}")
        return precision, precision


class _OneRequest(_Requests):
    """One request, run in the calling thread: passing it to another thread costs 100 us."""

    def run_resident(self) -> None:
        self.requests[0].infer()


def _ran_in(compiled: Any) -> Set[str]:
    """The types in which the nodes of WORK ran; of all nodes that compute if the model has none of WORK."""
    infos = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    ran = [(info["layerType"].astype(str), info["runtimePrecision"].astype(str)) for info in infos]
    work = [kind for layer, kind in ran if layer in WORK]
    return {TYPES.get(kind, kind) for kind in work or [kind for layer, kind in ran if layer not in IDLE]}
