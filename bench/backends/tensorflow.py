"""TensorFlow through Keras layers in one tf.function, on the CPU and on CUDA.

Tuning   best: XLA for recurrent layers and loops in fp32, where it was up to 1.4 times faster; plain
         graphs for the others, since XLA is slow on grouped and depthwise convolution.
         default: plain graphs
16-bit   plain graphs only: on the CPU, XLA turns 16-bit products into fp32 ones between casts (its
         optimised HLO of 2.21 says so), which would be a false label, and slower besides
"""

from __future__ import annotations

import math
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from bench.case import Case, Settings, Unavailable
from bench.graph import Graph
from bench.precision import PRECISIONS, loss_scale
from bench.step import Arrays, Program

PACKAGE = "tensorflow"
DEVICES = ("cpu", "cuda")
MODES = ("inference", "eval", "training")

LOOPS = ("rnn", "lstm", "gru", "scan")


def unsupported(precision: str, mode: str, device: str) -> Optional[str]:
    return None


def environment(settings: Settings, device: str) -> Dict[str, str]:
    return {
        "OMP_NUM_THREADS": str(settings.threads),
        "TF_NUM_INTRAOP_THREADS": str(settings.threads),
        "TF_NUM_INTEROP_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        # Other backends' workers stay warm beside this one, and want room on the same GPU.
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    }


def version() -> str:
    import tensorflow as tf

    return str(tf.__version__)


def compile(
    graph: Graph, weights: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]], case: Case, settings: Settings
) -> Program:
    import tensorflow as tf

    from bench.backends import _keras_layers as layers

    place = {"cpu": "/CPU:0", "cuda": "/GPU:0"}[case.device]
    if case.device == "cuda" and not tf.config.list_physical_devices("GPU"):
        raise Unavailable(f"not supported: tensorflow {tf.__version__} finds no CUDA device")
    # fp32 means fp32: no TF32.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    training = case.mode == "training"
    with tf.device(place):
        lowered = layers.Lowered(graph, dict(weights), case.precision)
    scale = loss_scale(case.precision, math.prod(graph.output.shape))
    loss_node = graph.nodes[graph.loss.node] if graph.loss.node >= 0 else None
    labels = [f"input{t.node}" for t in loss_node.inputs[1:]] if loss_node else []
    full = PRECISIONS[case.precision].compute == "float32"
    xla = settings.tuning == "best" and full and any(node.op in LOOPS for node in graph.nodes)
    rate = tf.Variable(0.0, dtype=tf.float32)
    names = list(graph.inputs)

    def forward(*args: Any) -> Any:
        given = dict(zip(names, args))
        output = lowered.output(given)
        if loss_node is None:
            return output, output
        return output, layers.loss(loss_node, output, [given[name] for name in labels])

    def train(*args: Any) -> Any:
        with tf.GradientTape() as tape:
            output, loss = forward(*args)
            scaled = loss * scale if scale != 1 else loss
        for variable, gradient in zip(variables, tape.gradient(scaled, variables)):
            update = rate / scale * tf.cast(gradient, tf.float32)
            variable.assign_sub(tf.cast(update, variable.dtype))
        return output, loss

    variables = _variables(lowered)
    host: List[Dict[str, Any]] = []
    resident: List[Any] = []
    result: List[Any] = [None, None]
    turn = [0]

    def native(name: str, array: Any) -> Any:
        kind = tf.int32 if array.dtype.kind == "i" else (tf.float32 if name in labels else lowered.compute)
        return tf.cast(layers.to_native(array), kind)

    def feed(batches: Sequence[Mapping[str, Any]]) -> None:
        with tf.device("/CPU:0"):
            tensors = [{name: native(name, array) for name, array in batch.items()} for batch in batches]
        host[:] = [{name: tensor.numpy() for name, tensor in batch.items()} for batch in tensors]
        with tf.device(place):
            resident[:] = [tf.identity(tensors[0][name]) for name in names]

    feed(inputs)
    with tf.device(place):
        function = tf.function(train if training else forward, jit_compile=xla, autograph=False)
        call = function.get_concrete_function(*resident)

    def run() -> None:
        result[:] = call(*resident)

    def run_moved() -> None:
        turn[0] += 1
        batch = host[turn[0] % len(host)]
        with tf.device(place):
            result[:] = call(*[tf.convert_to_tensor(batch[name]) for name in names])
        result[1 if loss_node else 0].numpy()

    def outputs() -> Arrays:
        found = {"output": layers.canonical(tf.cast(result[0], tf.float64).numpy())}
        if loss_node is not None:
            found["loss"] = tf.cast(result[1], tf.float64).numpy()
        return found

    moved = run_moved if settings.data == "generated" else run
    if case.device == "cuda":
        moved = _synchronised(moved)
    moved()
    held = {variable.dtype for variable in variables} or {PRECISIONS[case.precision].weights}
    return Program(
        moved,
        feed,
        outputs,
        compute=result[0].dtype.name,
        held=",".join(sorted(getattr(kind, "name", kind) for kind in held)),
        weights=lowered.arrays if training else None,
        load=lambda values: lowered.load(dict(values)),
        set_learning_rate=(lambda value: rate.assign(value)) if training else None,
        facts={"xla": xla, **({"loss_scale": scale} if scale != 1 else {})},
    )


def _variables(lowered: Any) -> List[Any]:
    """The variables behind the weights, each once, as TensorFlow's own."""
    found: Dict[int, Any] = {}
    for variable, _, _ in lowered.held.values():
        own = getattr(variable, "variable", variable)
        own = getattr(own, "value", own) if not callable(getattr(own, "value", None)) else own
        found[id(own)] = own
    return list(found.values())


def _synchronised(run: Callable[[], None]) -> Callable[[], None]:
    import tensorflow as tf

    def synchronised() -> None:
        run()
        tf.test.experimental.sync_devices()

    return synchronised
