"""TensorFlow through Keras layers in one tf.function, on the CPU and on CUDA.

Tuning   best: XLA for recurrent layers and loops in fp32, where it was up to 1.4 times faster; plain
         graphs for the others, since XLA is slow on grouped and depthwise convolution (11 to 13 times
         slower on MobileNet and EfficientNet). Image networks in inference read their weights as constants,
         so that norms go into convolutions and casts are done once: 1.3 times faster in bf16 on ResNet-50 (no gain
         seen in fp32), 1.2 on MobileNet v2, for a gigabyte more while it is compiled.
         default: plain graphs
16-bit   plain graphs only: on the CPU, XLA turns 16-bit products into fp32 ones between casts (its
         optimised HLO of 2.21 says so), which would be a false label, and slower besides
"""

from __future__ import annotations

import functools
import math
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence

from bench.cases.case import Case, Settings
from bench.cases.errors import Unavailable
from bench.cases.precision import PRECISIONS, loss_scale
from bench.cases.recipe import Recipe
from bench.graph import Graph
from bench.group import ALONE, Group
from bench.program import Arrays, Batches, Program, resident, turns

PACKAGE = "tensorflow"
DEVICES = ("cpu", "cuda")
MODES = ("inference", "eval", "training")
TOGETHER = True

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
    graph: Graph,
    weights: Mapping[str, Any],
    inputs: Sequence[Mapping[str, Any]],
    case: Case,
    settings: Settings,
    group: Group = ALONE,
) -> Program:
    import tensorflow as tf

    from bench.backends.tensorflow import lowering as layers

    if group.count > 1:
        from bench.backends.tensorflow import replicas

        replicas.join(group)
    place = {"cpu": "/CPU:0", "cuda": "/GPU:0"}[case.device]
    if case.device == "cuda" and not tf.config.list_physical_devices("GPU"):
        raise Unavailable(f"not supported: tensorflow {tf.__version__} finds no CUDA device")
    # fp32 means fp32: no TF32.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    training = case.mode == "training"
    network = any(node.block for node in graph.nodes)
    frozen = network and not training and settings.tuning == "best"
    with tf.device(place):
        lowered = layers.Lowered(graph, dict(weights), case.precision, frozen)
        trainer = _Trainer(lowered, case, settings.recipe, math.prod(graph.output.shape)) if training else None
    loss_node = graph.nodes[graph.loss.node] if graph.loss.node >= 0 else None
    labels = [f"input{t.node}" for t in loss_node.inputs[1:]] if loss_node else []
    full = PRECISIONS[case.precision].compute == "float32"
    # XLA on the CPU knows no exchange between processes.
    xla = group.count == 1 and settings.tuning == "best" and full and any(node.op in LOOPS for node in graph.nodes)
    names = list(graph.inputs)
    count = settings.recipe.gradient_accumulation if training else 1

    def forward(*args: Any) -> Any:
        given = dict(zip(names, args))
        output = lowered.output(given, training)
        if loss_node is None:
            return output, output
        return output, layers.loss(loss_node, output, [given[name] for name in labels])

    def logits(*args: Any) -> Any:
        return lowered.output(dict(zip(fed, args)))

    fed = [name for name in names if name not in labels]
    source: List[Iterator[List[Any]]] = []
    slots: List[List[Any]] = []
    result: List[Any] = [None, None]

    def native(name: str, array: Any) -> Any:
        return layers.native_input(array, tf.float32 if name in labels else lowered.compute)

    def native_batch(batch: Mapping[str, Any]) -> List[Any]:
        return [native(name, batch[name]) for name in names]

    def on_device(arrays: Sequence[Any]) -> List[Any]:
        with tf.device(place):
            return [tf.convert_to_tensor(array) for array in arrays]

    def feed(batches: Batches) -> None:
        if settings.data != "synthetic":
            source[:] = [turns(batches, native_batch)]
        if slots and settings.data != "synthetic":
            return
        # Copies: TensorFlow may work on numpy's own memory, which the caller may write to.
        slots[:] = [[tf.identity(t) for t in on_device(native_batch(b))] for b in resident(batches, count)]

    def trace(function: Callable[..., Any], given: Sequence[Any], jit: bool = False) -> Any:
        with tf.device(place):
            made = tf.function(function, jit_compile=jit or None, autograph=False)
            return made.get_concrete_function(*[tf.TensorSpec(t.shape, t.dtype) for t in given])

    feed(inputs)
    if trainer:
        add, update, alone = trainer.steps(forward, count, group.count > 1)
        calls = [trace(add, slots[0], xla)] * (count - 1) if count > 1 else []
        local_calls = [*calls, trace(alone, slots[0])] if group.count > 1 else []
        calls = [*calls, trace(update, slots[0], xla)]
    else:
        calls = [trace(forward, slots[0], xla)]

    def called(calls: Sequence[Any]) -> None:
        # The last output goes before the next is made, so that its memory is there again.
        result[:] = [None, None]
        for call, slot in zip(calls, slots):
            found = call(*slot)
        result[:] = found

    def run() -> None:
        called(calls)

    def run_moved() -> None:
        slots[:] = [on_device(next(source[0])) for _ in range(count)]
        run()
        result[1 if loss_node else 0].numpy()

    def load(values: Mapping[str, Any]) -> None:
        lowered.load(values)
        if trainer:
            trainer.optimiser.reset()
        if frozen:
            calls[:] = [trace(forward, slots[0])]

    def outputs() -> Arrays:
        found = {"output": layers.canonical(tf.cast(result[0], tf.float64).numpy())}
        if loss_node is not None:
            found["loss"] = tf.cast(result[1], tf.float64).numpy()
        return found

    predictor: List[Any] = []

    def predict(batch: Mapping[str, Any]) -> Any:
        given = on_device([native(name, batch[name]) for name in fed])
        if not predictor:
            predictor.append(trace(logits, given))
        return layers.canonical(tf.cast(predictor[0](*given), tf.float64).numpy())

    timed, inner = run_moved if settings.data != "synthetic" else run, run
    if case.device == "cuda":
        timed, inner = _synchronised(timed), _synchronised(inner)
    timed()
    held = {variable.dtype.name for variable, _ in lowered.variables()} or {PRECISIONS[case.precision].weights}
    scale = trainer.scale if trainer else 1.0
    return Program(
        timed,
        feed,
        outputs,
        compute=result[0].dtype.name,
        held=",".join(sorted(held)),
        weights=lowered.arrays if training else None,
        load=load,
        set_learning_rate=trainer.set_learning_rate if trainer else None,
        compute_only=inner,
        local=(lambda: called(local_calls)) if group.count > 1 else None,
        predict=predict,
        facts=_facts(xla, frozen, scale),
    )


class _Trainer:
    """One weight update: the gradients of one batch after another, then the optimiser."""

    def __init__(self, lowered: Any, case: Case, recipe: Recipe, elements: int) -> None:
        import tensorflow as tf

        from bench.backends.tensorflow import optimisers

        self.recipe = recipe
        trained = [(variable, weight) for variable, weight in lowered.variables() if weight.trained]
        self.variables = [variable for variable, _ in trained]
        matrices = [len(weight.shape) > 1 for _, weight in trained]
        self.optimiser = optimisers.Optimiser(recipe, self.variables, matrices)
        self.scale = recipe.loss_scaling or loss_scale(case.precision, elements)
        self.rate = tf.Variable(0.0, dtype=tf.float32, trainable=False)

    def set_learning_rate(self, rate: float) -> None:
        self.rate.assign(rate / self.scale if self.recipe.linear else rate)

    def steps(self, forward: Callable[..., Any], count: int, exchanging: bool) -> List[Callable[..., Any]]:
        """What is done with all batches but the last, what with the last, where replicas exchange the mean of their
        gradients, and the same without that.

        Two functions and sums in variables: `count` copies of the network in one graph would be traced, optimised and
        kept `count` times, and a loop on the device would copy each batch out of a stack of them. A call costs less
        than a millisecond.
        """
        import tensorflow as tf

        factor = self.scale / count
        sums = [tf.Variable(tf.zeros_like(v), trainable=False) for v in self.variables] if count > 1 else []

        def gradients(args: Any) -> Any:
            with tf.GradientTape() as tape:
                output, loss = forward(*args)
                scaled = loss * factor if factor != 1 else loss
            return output, loss, tape.gradient(scaled, self.variables)

        def add(*args: Any) -> None:
            for total, gradient in zip(sums, gradients(args)[2]):
                total.assign_add(gradient)

        def update(*args: Any, exchange: bool = False) -> Any:
            output, loss, found = gradients(args)
            if sums:
                found = [gradient + total for gradient, total in zip(found, sums)]
            if exchange:
                found = replicas.mean(found)
            if self.scale != 1 and not self.recipe.linear:
                found = [tf.cast(gradient, tf.float32) / self.scale for gradient in found]
            self.optimiser.apply(found, self.rate)
            for total in sums:
                total.assign(tf.zeros_like(total))
            return output, loss

        if not exchanging:
            return [add, update, update]
        from bench.backends.tensorflow import replicas

        return [add, replicas.together(functools.partial(update, exchange=True)), update]


def _facts(xla: bool, frozen: bool, scale: float) -> Dict[str, Any]:
    facts: Dict[str, Any] = {"xla": xla}
    if frozen:
        facts["frozen"] = True
    if scale != 1:
        facts["loss_scale"] = scale
    return facts


def _synchronised(run: Callable[[], None]) -> Callable[[], None]:
    import tensorflow as tf

    def synchronised() -> None:
        run()
        tf.test.experimental.sync_devices()

    return synchronised
