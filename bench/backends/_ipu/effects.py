"""Which operations of a graph read which options, for each backend. An option that nothing reads has no effect.

Sources, SDK 3.4. PopTorch: `Compiler.cpp` (a memory proportion is an attribute of operations with one output),
`RegisterOptionalAtenOps.cpp.inc` (only an LSTM stays whole; GRU and RNN become the products of each time step). PopART:
`matmul.cpp`, `convbase.cpp`, `lstmx.cpp`, `grux.cpp`, `batchnormx.cpp`, `groupnormx.cpp`;
`rnnx.cpp` passes no options to its products. `streamingmemoryopinserter.cpp`: where optimiser state is, which PopTorch
leaves to PopART. TensorFlow: `poplar_util.cc`, `rnn_util.cc`, `norm_ops.cc`, `variables_offload_and_partition.cc`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Callable, Dict, FrozenSet, List, Tuple

from bench.backends import _ipu
from bench.cases import poplar
from bench.cases.case import Case, Settings
from bench.cases.precision import PRECISIONS
from bench.cases.recipe import STATES
from bench.graph import Graph, Node

CELLS = frozenset({"rnn_cell", "gru_cell", "lstm_cell"})
CONVOLUTIONS = frozenset({"conv"})
# The primitives that are matrix products, or that pass the options of products to PopLibs.
PRODUCTS: Dict[str, FrozenSet[str]] = {
    "poptorch": frozenset({"dense", "rnn", "gru", "lstm"}) | CELLS,
    "popart": frozenset({"dense", "gru", "lstm"}) | CELLS,
    "tensorflow_ipu": frozenset({"dense", "rnn", "gru", "lstm"}) | CELLS,
}
# The recurrent layers of TensorFlow that have partial sums in 16 bits only if they compute in 16 bits.
OWN_PARTIALS = frozenset({"gru", "lstm"})
# The recurrent layers of which PopTorch makes an operation for each time step.
UNROLLED = frozenset({"rnn", "gru"}) | CELLS
# The smallest state of a weight that moves to remote memory, and that replicas share: in numbers, of PopART; and in
# bytes of each replica, of TensorFlow.
LEAST_OFFLOADED, LEAST_SHARDED, LEAST_REMOTE_BYTES = 2, 8192, 128


@dataclass(frozen=True)
class Reader:
    """Whether something of a case reads an option."""

    option: str
    given: Callable[[Settings], bool]
    read: Callable[[Graph, Case, Settings], bool]


def without_effect(graph: Graph, case: Case, settings: Settings) -> List[str]:
    """The options, by their names on the command line, that are given and that nothing in the case reads."""
    return [reader.option for reader in READERS if reader.given(settings) and not reader.read(graph, case, settings)]


def facts(graph: Graph, case: Case, settings: Settings, output_mode: str, scale: float) -> Dict[str, Any]:
    """The tuning of a program, to be recorded: what an operation reads, without the SDK's defaults."""
    matmul, conv = _ipu.partials(settings)
    tuning = {
        "output_mode": output_mode,
        "partials_matmul": matmul if reads_matmul_partials(graph, case, settings) else "",
        "partials_conv": conv if reads_conv_options(graph, case, settings) else "",
        "recurrence": "unrolled" if case.backend == "poptorch" and graph.operations & UNROLLED else "",
        "without_effect": ", ".join(without_effect(graph, case, settings)),
    }
    return {**{name: fact for name, fact in tuning.items() if fact}, **({"loss_scale": scale} if scale != 1 else {})}


def reads_matmul_partials(graph: Graph, case: Case, settings: Settings) -> bool:
    found = graph.operations & PRODUCTS[case.backend]
    half = _ipu.partials(settings)[0] == "half"
    if case.backend == "tensorflow_ipu" and half and PRECISIONS[case.precision].compute != "float16":
        found -= OWN_PARTIALS
    return bool(found)


def reads_conv_options(graph: Graph, case: Case, settings: Settings) -> bool:
    return bool(graph.operations & CONVOLUTIONS)


def _reads_memory(graph: Graph, case: Case, settings: Settings) -> bool:
    return bool(graph.operations & (PRODUCTS[case.backend] | CONVOLUTIONS))


def _reads_stable_norm(graph: Graph, case: Case, settings: Settings) -> bool:
    return any(_has_statistics(node) for node in graph.nodes)


def _has_statistics(node: Node) -> bool:
    """Whether a node is a norm that computes the variance of its input. A batch norm does so in training."""
    return node.op == "group_norm" or (node.op == "batch_norm" and bool(node.attrs["training"]))


def _offloads(graph: Graph, case: Case, settings: Settings) -> bool:
    if case.backend == "tensorflow_ipu":
        return _is_remote(graph, case, settings)
    return _largest_state(graph, case, settings) >= LEAST_OFFLOADED


def _shards(graph: Graph, case: Case, settings: Settings) -> bool:
    if case.backend == "tensorflow_ipu":
        return _is_remote(graph, case, settings)
    return _largest_state(graph, case, settings) >= LEAST_SHARDED


def _is_remote(graph: Graph, case: Case, settings: Settings) -> bool:
    shares = case.replicas if settings.poplar.replicated_tensor_sharding else 1
    number_bytes = 2 if PRECISIONS[case.precision].weights == "float16" else 4
    return _largest_state(graph, case, settings) * number_bytes >= LEAST_REMOTE_BYTES * shares


def _largest_state(graph: Graph, case: Case, settings: Settings) -> int:
    """The numbers of the largest tensor of optimiser state; 0 if there is none.

    PopART puts a buffer that momentum and accumulated gradients share where accumulated gradients are.
    """
    recipe, combined = settings.recipe, settings.poplar.combined_momentum and case.backend != "tensorflow_ipu"
    if case.mode != "training" or not STATES[recipe.optimiser] or (combined and recipe.gradient_accumulation > 1):
        return 0
    return max((math.prod(weight.shape) for weight in graph.weights if weight.trained), default=0)


def _has_halves(graph: Graph, case: Case, settings: Settings) -> bool:
    precision = PRECISIONS[case.precision]
    return "float16" in (precision.compute, precision.weights)


def _is_session(graph: Graph, case: Case, settings: Settings) -> bool:
    """Whether the case is a training session of PopART, which PopTorch has as well."""
    return case.mode == "training" and case.backend != "tensorflow_ipu"


def _sums_gradients(graph: Graph, case: Case, settings: Settings) -> bool:
    return case.mode == "training" and case.replicas > 1 and settings.all_reduce


def _streams(graph: Graph, case: Case, settings: Settings) -> bool:
    return settings.data != "synthetic" and bool(graph.inputs)


def _non_default(name: str) -> Callable[[Settings], bool]:
    return lambda settings: getattr(settings.poplar, name) != getattr(poplar.DEFAULT_POPLAR, name)


def _readers(read: Callable[[Graph, Case, Settings], bool], *names: str) -> Tuple[Reader, ...]:
    return tuple(Reader(poplar.option(name), _non_default(name), read) for name in names)


READERS: Tuple[Reader, ...] = (
    *_readers(reads_matmul_partials, "partials_type_matmul"),
    *_readers(reads_conv_options, "partials_type_conv", "conv_dithering"),
    Reader(
        "--half-partial",
        lambda settings: settings.half_partial,
        lambda graph, case, settings: (
            reads_matmul_partials(graph, case, settings) or reads_conv_options(graph, case, settings)
        ),
    ),
    *_readers(_reads_memory, "available_memory_proportion"),
    *_readers(_reads_stable_norm, "stable_norm"),
    *_readers(_has_halves, "stochastic_rounding"),
    *_readers(_offloads, "variable_offloading"),
    *_readers(_shards, "replicated_tensor_sharding"),
    *_readers(_is_session, "combined_momentum", "session_options"),
    *_readers(_sums_gradients, "max_cross_replica_buffer_size"),
    *_readers(_streams, "prefetch"),
)
