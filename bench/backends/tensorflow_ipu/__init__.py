"""TensorFlow 2.6 for IPU: the Keras lowering in one jit-compiled function, whose loop runs on the device.

Precision   fp32, fp16 (16.16) and fp16m (16.32); IPUs have no bfloat16
Replicas    are implied: IPUs over stages. Gradients are averaged over batches and replicas
Pipelines   by blocks; TensorFlow accumulates in every one of them
Statistics  of norms move with the weight update, by their mean over its batches and replicas
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from bench.backends._ipu.closures import Closures
from bench.cases import poplar
from bench.cases.case import Case, Settings
from bench.cases.errors import Unavailable
from bench.cases.poplar import checkable
from bench.cases.precision import PRECISIONS
from bench.graph import Graph
from bench.program import Arrays, Batches

__all__ = ["DEVICES", "MODES", "PACKAGE", "checkable", "compile", "environment", "unsupported", "version"]

# What says that TensorFlow is the SDK's cannot be looked for without loading TensorFlow; the add-ons come with it.
PACKAGE = "ipu_tensorflow_addons"
DEVICES = ("ipu",)
MODES = ("inference", "eval", "training")

CYCLES = re.compile(rb"Cycle count: (\d+)")


def unsupported(precision: str, mode: str, device: str) -> Optional[str]:
    if "bfloat16" in (PRECISIONS[precision].compute, PRECISIONS[precision].weights):
        return f"{precision}: IPUs have no bfloat16"
    return None


def environment(settings: Settings, device: str) -> Dict[str, str]:
    chosen, flags = settings.poplar, []
    if chosen.ipu_model:
        flags.append("--use_ipu_model")
    if chosen.executable_cache:
        flags.append(f"--executable_cache_path={chosen.executable_cache}")
    if chosen.cycle_count:
        flags.append("--log_cycle_count=0")
    found = poplar.environment(settings, os.environ)
    told = poplar.tf_flags(flags, os.environ)
    return {**found, "TF_POPLAR_FLAGS": told} if told else found


def version() -> str:
    try:
        import tensorflow as tf
        from tensorflow.python import ipu  # noqa: F401 - that it is there
    except ImportError as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ImportError(f"the SDK's TensorFlow is not enabled, or was built for another Python: {text}") from None
    return str(tf.__version__)


def compile(
    graph: Graph, weights: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]], case: Case, settings: Settings
) -> Closures:
    from bench.backends.tensorflow_ipu import config

    config.require(graph, case, settings)
    config.attach(case, settings)
    try:
        with config.messages():
            return _program(graph, weights, inputs, case, settings)
    except BaseException:
        config.release()
        raise


def _program(
    graph: Graph, weights: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]], case: Case, settings: Settings
) -> Closures:
    from tensorflow.python import ipu
    from tensorflow.python.ipu import ipu_strategy

    from bench.backends import _ipu
    from bench.backends.tensorflow import lowering
    from bench.backends.tensorflow_ipu import config, training
    from bench.backends.tensorflow_ipu.calls import Call, output_mode
    from bench.backends.tensorflow_ipu.layers import Network

    strategy = ipu_strategy.IPUStrategyV1()
    fed = settings.data != "synthetic" and bool(graph.inputs)
    with strategy.scope():
        network = Network(graph, dict(weights), case, settings)
        trainer = training.Trainer(network, case, settings) if case.mode == "training" else None
        call = Call(strategy, network, trainer, case, settings, fed)
    alike: List[bool] = [False]
    still: List[Call] = []

    def feed(batches: Batches) -> None:
        alike[:] = [fed and isinstance(batches, Sequence) and len(batches) == 1]
        with config.messages():
            call.feed(batches)

    def run() -> None:
        with config.messages():
            call()

    def resident() -> None:
        """The same on one batch that stays on the device, compiled when it is first asked for."""
        with config.messages():
            if not still:
                with strategy.scope():
                    still.append(Call(strategy, network, trainer, case, settings, False))
                still[0].feed(inputs)
            still[0]()

    def load(arrays: Mapping[str, Any]) -> None:
        network.load(arrays)
        if trainer:
            trainer.optimiser.reset()

    def outputs() -> Arrays:
        # From one update to the next weights move, and results with them.
        same = alike[0] and (trainer is None or settings.batches_per_step == 1) and call.mode == "all"
        found = {name: _ipu.last(copies, same) for name, copies in call.copies().items()}
        return {name: lowering.canonical(array) for name, array in found.items()}

    def close() -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(config.release)
            stack.callback(call.close)

    feed(inputs)
    call()
    returned = call.copies()["output"].dtype.name if call.results and call.mode != "resident" else network.compute.name
    held = {variable.dtype.name for variable, _ in network.variables()} or {PRECISIONS[case.precision].weights}
    return Closures(
        run,
        feed,
        outputs,
        compute=returned,
        held=",".join(sorted(held)),
        weights=network.arrays if trainer else None,
        load=load,
        set_learning_rate=trainer.set_learning_rate if trainer else None,
        compute_only=resident if fed else None,
        predict=_predict(strategy, network, config.messages) if trainer else None,
        facts=_facts(settings, output_mode(case, settings) if fed else "", trainer.scale if trainer else 1.0),
        looped=True,
        told=(lambda: _cycles(run)) if settings.poplar.cycle_count else None,
        close=close,
        source=_ipu.source(ipu, settings),
    )


def _predict(strategy: Any, network: Any, messages: Callable[[], Any]) -> Callable[[Mapping[str, Any]], Any]:
    """The logits of a batch, its norms at their running statistics."""
    import tensorflow as tf

    from bench.backends.tensorflow import lowering

    names = [name for name in network.graph.inputs if int(name[len("input") :]) not in network.labels]

    def logits(*args: Any) -> Any:
        values = dict(zip((int(name[len("input") :]) for name in names), args))
        network.in_training, kept = False, network.in_training
        network.training = False
        try:
            network._walk(network.nodes[0], values)
        finally:
            network.in_training = kept
        return values[network.graph.output.node]

    function = tf.function(logits, jit_compile=True, autograph=False)

    def predict(batch: Mapping[str, Any]) -> Any:
        if len(network.nodes) > 1:
            raise Unavailable("not supported: hits of a network that is cut over several IPUs (tensorflow_ipu)")
        given = [tf.convert_to_tensor(lowering.native_input(batch[name], network.compute)) for name in names]
        with messages():
            return lowering.canonical(strategy.run(function, args=given).numpy())

    return predict


def _facts(settings: Settings, mode: str, scale: float) -> Dict[str, Any]:
    products, convolutions = poplar.partials(settings)
    found: Dict[str, Any] = {
        "output_mode": mode,
        "partials_matmul": products,
        "partials_conv": convolutions,
        "loss_scale": scale if scale != 1 else "",
    }
    return {name: value for name, value in found.items() if value != ""}


def _cycles(run: Callable[[], None]) -> Dict[str, Any]:
    """The cycles of one more call: TensorFlow logs them, and has no other way to tell."""
    with tempfile.TemporaryFile() as log:
        kept = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            run()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        log.seek(0)
        found = CYCLES.findall(log.read())
    return {"cycles": int(found[-1])} if found else {}
