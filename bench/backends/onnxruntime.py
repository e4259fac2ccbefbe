"""ONNX Runtime on the CPU, or on CUDA where its build has it: inference and eval.

Tuning   best: bound inputs and outputs, all optimisations, threads that spin between operators.
         default: the session's own settings but for the thread count, plain `run`
16-bit   the CPU provider has no 16-bit kernels for these layers: it would insert casts and compute
         in fp32 (seen in the optimised graph of 1.31), so those cases skip
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from bench.cases.case import Case, Settings
from bench.cases.errors import Unavailable
from bench.graph import Graph
from bench.program import Arrays, Batches, Program, resident, turns

PACKAGE = "onnxruntime"
DEVICES = ("cpu", "cuda")
MODES = ("inference", "eval")


def unsupported(precision: str, mode: str, device: str) -> Optional[str]:
    return None if precision == "fp32" else f"onnxruntime would compute {precision} in fp32 on the {device}"


def environment(settings: Settings, device: str) -> Dict[str, str]:
    return {"OMP_NUM_THREADS": str(settings.threads)}


def version() -> str:
    import onnxruntime

    return str(onnxruntime.__version__)


def exported(graph: Graph, weights: Mapping[str, Any]) -> bytes:
    """The ONNX model of a graph, as a file has it."""
    from bench.backends._onnx import model as onnx_model

    return bytes(onnx_model.model(graph, weights).SerializeToString())


def compile(
    graph: Graph, weights: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]], case: Case, settings: Settings
) -> Program:
    import numpy as np
    import onnxruntime as ort

    from bench.backends._onnx import model as onnx_model

    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[case.device]
    if provider not in ort.get_available_providers():
        raise Unavailable(f"not supported: onnxruntime {ort.__version__} here has no {provider}")
    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # fp32 means fp32: CUDA's provider would take TF32 otherwise.
    chosen: Any = (provider, {"use_tf32": "0"}) if case.device == "cuda" else provider
    model = exported(graph, weights)
    session = ort.InferenceSession(model, options, providers=[chosen])
    names = [output.name for output in session.get_outputs()]
    bound = settings.tuning == "best" and settings.data == "synthetic"
    binding = session.io_binding()
    source: List[Iterator[Dict[str, Any]]] = []
    held: List[Dict[str, Any]] = []
    result: List[Any] = []

    def native(batch: Mapping[str, Any]) -> Dict[str, Any]:
        return {k: onnx_model.native(v, np.float32) for k, v in batch.items()}

    def feed(batches: Batches) -> None:
        if not bound:
            source[:] = [turns(batches, native)]
            return
        held[:] = map(native, resident(batches, 1))
        binding.clear_binding_inputs()
        binding.clear_binding_outputs()
        for name, array in held[0].items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, case.device, 0))
        for output in session.get_outputs():
            kept = ort.OrtValue.ortvalue_from_shape_and_type(output.shape, np.float32, case.device, 0)
            binding.bind_ortvalue_output(output.name, kept)

    def run_bound() -> None:
        session.run_with_iobinding(binding)

    def run_moved() -> None:
        held[:] = [next(source[0])]
        result[:] = session.run(names, held[0])

    def run_held() -> None:
        result[:] = session.run(names, held[0])

    def outputs() -> Arrays:
        arrays = [value.numpy() for value in binding.get_outputs()] if bound else result
        return onnx_model.results(dict(zip(names, arrays)))

    feed(inputs)
    run, compute_only = (run_bound, None) if bound else (run_moved, run_held)
    run()
    kinds = {output.type for output in session.get_outputs()}
    compute = "float32" if kinds == {"tensor(float)"} else ",".join(sorted(kinds))
    facts = {"provider": session.get_providers()[0], "io_binding": bound}
    return Program(run, feed, outputs, compute=compute, held="float32", compute_only=compute_only, facts=facts)
