"""OpenVINO on the CPU, from the same ONNX model as ONNX Runtime: inference and eval.

Tuning   best: the throughput hint for convolutions with a batch size below 8, with the number of requests in
         flight that OpenVINO calls optimal (up to 1.2 times faster on ResNet-50). Otherwise the latency hint with one
         request: passing a request to another thread costs 100 us, three times as much as a small RNN layer.
         default: the latency hint with one request
16-bit   by the precision hint; the precision of each node is then read from the compiled model
"""

from __future__ import annotations

from time import perf_counter
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Set, Tuple

from bench.backends._onnx import exported
from bench.backends._onnx.primitives import PRIMITIVES
from bench.cases.case import Case, Settings
from bench.cases.errors import Unavailable
from bench.cases.precision import PRECISIONS
from bench.graph import Graph, naming
from bench.profiling import Kernel, Profile, Run, chrome_trace, timed
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
# The nodes of a graph that are loops, by the names of OpenVINO's operations.
LOOPS = {"LSTMSequence": "lstm", "GRUSequence": "gru", "RNNSequence": "rnn", "TensorIterator": "scan"}
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
    return kind(graph, weights, case, settings, compiled, facts).started(inputs)


def _compiled(
    graph: Graph, weights: Mapping[str, Any], case: Case, settings: Settings, counted: bool = False
) -> Tuple[Any, Dict[str, Any]]:
    """The compiled model, and its tuning: the hint and the number of requests. `counted`: it times its nodes."""
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
        **({"PERF_COUNT": "YES"} if counted else {}),
    }
    if settings.caches:
        options["CACHE_DIR"] = settings.caches
    compiled = core.compile_model(_seeded(core.read_model(exported(graph, weights))), "CPU", options)
    count = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")) if many else 1
    return compiled, {"hint": hint, "requests": count}


def _seeded(model: Any) -> Any:
    """The model, in which each draw of random numbers has a seed of its own.

    OpenVINO makes a normal draw of two uniform ones. Without seeds, OpenVINO 2026.4.1 merges the two, since they are
    equal operations: the numbers are then a function of one uniform number, with mean 0.056 and none below -1.21.
    """
    draws = [node for node in model.get_ops() if node.get_type_name() == "RandomUniform"]
    for seed, node in enumerate(draws, 1):
        node.set_attribute("op_seed", seed)
    return model


class _Requests(Program):
    """A compiled model with several requests, which run concurrently."""

    def __init__(
        self,
        graph: Graph,
        weights: Mapping[str, Any],
        case: Case,
        settings: Settings,
        compiled: Any,
        facts: Dict[str, Any],
    ) -> None:
        import openvino as ov

        from bench.backends._onnx import model

        super().__init__(graph, case, settings)
        self.ov, self.onnx_model = ov, model
        self.initial, self.compiled, self.facts = weights, compiled, facts
        self.batches_in_flight = facts["requests"]
        self.requests = self._created(compiled)
        self.names = ["output", "loss"][: len(compiled.outputs)]
        self.arrays: Arrays = {}

    def _created(self, compiled: Any) -> List[Any]:
        return [compiled.create_infer_request() for _ in range(self.batches_in_flight)]

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

    def profile(self, steps: int) -> Profile:
        """One mean run. OpenVINO reports the mean time of each node over all requests so far, in whole microseconds,
        and no times of single runs."""
        compiled, _ = _compiled(self.graph, self.initial, self.case, self.settings, counted=True)
        before, self.requests = self.requests, self._created(compiled)
        try:
            if self.arrays:
                self.keep([self.arrays])
            self.run()
            first = _counters(self.requests[-1])
            seconds = [timed(self.run, perf_counter) for _ in range(steps)]
            all_runs = _counters(self.requests[-1])
        finally:
            self.requests = before
        nodes = _nodes(compiled.get_runtime_model(), self.graph)
        # The first run, which warms up, is subtracted.
        kernels = [
            Kernel(kind, nodes.get(name, ()), max(0.0, (mean_s * (1 + steps) - first[name][1]) / steps))
            for name, (kind, mean_s) in all_runs.items()
        ]
        return Profile([Run(sum(seconds) / steps, kernels)], _trace(all_runs, kernels))


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


def _counters(request: Any) -> Dict[str, Tuple[str, float]]:
    """The executed nodes of the compiled model by name, in order: their kernel, and their mean time in seconds."""
    infos = [info for info in request.get_profiling_info() if str(info.status).endswith("EXECUTED")]
    return {info.node_name: (f"{info.node_type} {info.exec_type}", info.real_time.total_seconds()) for info in infos}


def _nodes(model: Any, graph: Graph) -> Dict[str, Tuple[int, ...]]:
    """The nodes of the graph that each node of the compiled model computes.

    OpenVINO lists the ONNX nodes that it fused. A node that it made itself, such as a change of layout, belongs to the
    node that reads its result, or else to the one whose result it reads.
    """
    ends = {"output": graph.output.node, "loss": graph.loss.node}
    loops = {kind: [index for index, node in enumerate(graph.nodes) if node.op == op] for kind, op in LOOPS.items()}
    found: Dict[str, Tuple[int, ...]] = {}
    ordered = model.get_ordered_ops()
    for node in ordered:
        originals = node.get_rt_info()["originalLayersNames"].astype(str).split(",")
        named = naming.indexes(",".join(originals))
        named = named or tuple(ends[name] for name in originals if name in ends)
        # The kernel of a loop loses its name; the loops run in the order of the graph.
        kind = node.get_friendly_name().partition("_")[0]
        if not named and loops.get(kind):
            named = (loops[kind].pop(0),)
        found[node.get_friendly_name()] = named
    for node in reversed(ordered):
        readers = [port.get_node() for output in node.outputs() for port in output.get_target_inputs()]
        name = node.get_friendly_name()
        found[name] = found[name] or next((found[r.get_friendly_name()] for r in readers), ())
    for node in ordered:
        sources = [source.get_source_output().get_node().get_friendly_name() for source in node.inputs()]
        name = node.get_friendly_name()
        found[name] = found[name] or next((found[source] for source in sources if found[source]), ())
    return found


def _trace(counters: Mapping[str, Any], kernels: Sequence[Kernel]) -> bytes:
    """A trace of a mean run. OpenVINO reports no start of a node, so they are drawn one after the other."""
    rows, start = [], 0.0
    for name, kernel in zip(counters, kernels):
        rows.append(("mean times, drawn one after the other", name, start, kernel.seconds, {"kernel": kernel.name}))
        start += kernel.seconds
    return chrome_trace(rows)
