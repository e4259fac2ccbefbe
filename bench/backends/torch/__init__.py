"""PyTorch, on the CPU and on CUDA.

Tuning   best: channels-last images and inference mode. An image network is compiled and frozen, where
         there is a C++ compiler: up to 3 times faster, for half a minute of compiling. So is the body of
         a scan of elementwise operations (HMC), each of which costs more to call than to compute. Nothing
         else is: a compiler gains nothing on a fused recurrent layer.
         default: contiguous tensors, no_grad, eager
"""

from __future__ import annotations

import contextlib
import math
import shutil
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence

from bench.cases.case import Case, Settings
from bench.cases.errors import Unavailable
from bench.cases.precision import PRECISIONS
from bench.graph import Graph
from bench.group import ALONE, Group
from bench.program import Arrays, Batches, Program, resident, turns

PACKAGE = "torch"
DEVICES = ("cpu", "cuda")
MODES = ("inference", "eval", "training")
TOGETHER = True

# Gradient modes are entered once a case, not once a step, as a loop written by hand would do.
_modes = contextlib.ExitStack()


def unsupported(precision: str, mode: str, device: str) -> Optional[str]:
    return None


def environment(settings: Settings, device: str) -> Dict[str, str]:
    threads = str(settings.threads)
    return {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "TORCHINDUCTOR_COMPILE_THREADS": "1"}


def version() -> str:
    import torch

    return str(torch.__version__)


def compile(
    graph: Graph,
    weights: Mapping[str, Any],
    inputs: Sequence[Mapping[str, Any]],
    case: Case,
    settings: Settings,
    group: Group = ALONE,
) -> Program:
    import torch

    from bench.backends.torch import lowering as modules
    from bench.backends.torch.training import Trainer

    if case.device == "cuda" and not torch.cuda.is_available():
        raise Unavailable(f"not supported: torch {torch.__version__} finds no CUDA device")
    _configure(settings)
    _modes.close()
    training, best = case.mode == "training", settings.tuning == "best"
    precision = PRECISIONS[case.precision]
    mixed = precision.weights != precision.compute
    compute, held = getattr(torch, precision.compute), getattr(torch, precision.weights)
    lowered = modules.Lowered(graph, weights)
    images = any(len(node.shape) == 4 for node in graph.nodes)
    network = any(node.block for node in graph.nodes)
    layout: Any = torch.channels_last if images and best else torch.contiguous_format
    model = lowered.module.to(case.device, held).train(training)
    if images:
        model = model.to(memory_format=layout)
    frozen = best and network and not training and not mixed and _compiler()
    if not training:
        # A frozen graph is compiled under no_grad: inference tensors cannot be its constants.
        _modes.enter_context(torch.inference_mode() if best and not frozen else torch.no_grad())

    def native(name: str, array: Any) -> Any:
        shape = graph.inputs[name].shape
        tensor = modules.to_native(array, sequence=len(shape) == 3 or (array.dtype.kind == "i" and len(shape) == 2))
        if name in labels or tensor.dtype == torch.uint8:
            return tensor.contiguous(memory_format=layout) if tensor.dim() == 4 else tensor
        tensor = tensor.to(compute if not mixed else torch.float32)
        return tensor.contiguous(memory_format=layout) if tensor.dim() == 4 else tensor

    def native_batch(batch: Mapping[str, Any]) -> Dict[str, Any]:
        return {name: native(name, array) for name, array in batch.items()}

    nodes = graph.nodes
    labels = [f"input{t.node}" for t in nodes[graph.loss.node].inputs[1:]] if graph.loss.node >= 0 else []
    fed = [name for name in graph.inputs if name not in labels]
    count = settings.recipe.gradient_accumulation if training else 1
    slots: List[Dict[str, Any]] = []
    source: List[Iterator[Dict[str, Any]]] = []
    result: Dict[str, Any] = {}

    def feed(batches: Batches) -> None:
        if settings.data != "synthetic":
            source[:] = [turns(batches, native_batch)]
        if slots and settings.data != "synthetic":
            return
        for index, batch in enumerate(resident(batches, count)):
            if len(slots) == index:
                slots.append({k: v.to(case.device, copy=True) for k, v in native_batch(batch).items()})
            for name, tensor in native_batch(batch).items():
                slots[index][name].copy_(tensor)

    feed(inputs)
    every = [([slot[name] for name in fed], [slot[name] for name in labels]) for slot in slots]
    if frozen:
        torch._inductor.config.freezing = True
        model = torch.compile(model, dynamic=False)
    compiled = frozen or (best and not training and _compile_scans(model))
    forward: Callable[..., Any] = _autocast(model, case.device, compute) if mixed else model

    def loss_of(output: Any, ys: List[Any]) -> Any:
        return modules.loss(nodes[graph.loss.node], output, ys)

    # The last output goes before the next is made: two alive at once would not reuse memory, and
    # fresh pages once made a convolution 2.4 times slower.
    def run_inference() -> None:
        result["output"] = None
        result["output"] = forward(*every[0][0])

    def run_eval() -> None:
        result["output"] = None
        result["output"] = output = forward(*every[0][0])
        result["loss"] = loss_of(output, every[0][1])

    trainer = Trainer(model, case, settings.recipe, max(1, _elements(graph)), group) if training else None
    if trainer is not None:
        forward = _autocast(trainer.model, case.device, compute) if mixed else trainer.model

    def run_training() -> None:
        result["output"] = None
        assert trainer is not None
        result["output"], result["loss"] = trainer.update(forward, loss_of, every)

    inner = {"inference": run_inference, "eval": run_eval, "training": run_training}[case.mode]
    run = inner if settings.data == "synthetic" else _moved(inner, source, slots, result)
    if case.device == "cuda":
        inner, run = _synchronised(inner), _synchronised(run)

    def local() -> None:
        assert trainer is not None
        with trainer.alone():
            run()

    def outputs() -> Arrays:
        output = result["output"].detach().to("cpu", torch.float64)
        output = output.transpose(0, 1) if output.dim() == 3 else output
        found = {"output": output.numpy()}
        if "loss" in result:
            found["loss"] = result["loss"].detach().to("cpu", torch.float64).numpy()
        return found

    def load(values: Mapping[str, Any]) -> None:
        lowered.load(values)
        if trainer is not None:
            trainer.optimiser.state.clear()

    def predict(batch: Mapping[str, Any]) -> Any:
        tensors = native_batch(batch)
        model.eval()
        with torch.no_grad():
            output = forward(*[tensors[name].to(case.device) for name in fed])
        model.train(training)
        return output.to("cpu", torch.float64).numpy()

    try:
        run()
    except RuntimeError as error:
        if "could not create a primitive" not in str(error):
            raise
        raise Unavailable(
            f"not supported: oneDNN cannot run {case.workload} {case.mode} in {case.precision}"
        ) from error
    ran = str(result["output"].dtype).replace("torch.", "")
    if mixed and ran != precision.compute:
        raise Unavailable(f"not supported: autocast leaves {case.workload} in {ran} on {case.device}")
    scale = trainer.scale if trainer else 1.0
    return Program(
        run,
        feed,
        outputs,
        compute=ran,
        held=str(next((p.dtype for p in lowered.parameters.values()), held)).replace("torch.", ""),
        weights=(lambda: modules.arrays(lowered.parameters)) if training else None,
        load=load,
        set_learning_rate=trainer.set_learning_rate if trainer else None,
        compute_only=inner,
        local=local if group.count > 1 else None,
        predict=predict,
        facts=_facts(compiled, layout, scale, images),
    )


def _configure(settings: Settings) -> None:
    import torch

    torch.set_num_threads(settings.threads)
    # fp32 means fp32: no TF32 in products or convolutions, and no 16-bit sums in 16-bit products.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = settings.half_partial
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = settings.half_partial
    torch.backends.cudnn.benchmark = settings.tuning == "best"


def _compile_scans(model: Any) -> bool:
    """Compile the bodies of explicit loops that are all elementwise; say whether there was one."""
    import torch

    from bench.backends.torch.sequences import Scan

    found = [module for module in model.modules() if isinstance(module, Scan)]
    if not found or not _compiler():
        return False
    for scan in found:
        scan.body = torch.compile(scan.body, dynamic=False)
    return True


def _compiler() -> bool:
    return shutil.which("c++") is not None


def _facts(compiled: bool, layout: Any, scale: float, images: bool) -> Dict[str, Any]:
    facts: Dict[str, Any] = {"compiled": compiled}
    if images:
        facts["layout"] = str(layout).replace("torch.", "")
    if scale != 1:
        facts["loss_scale"] = scale
    return facts


def _elements(graph: Graph) -> int:
    return math.prod(graph.output.shape)


def _autocast(model: Any, device: str, dtype: Any) -> Callable[..., Any]:
    import torch

    def cast(*xs: Any) -> Any:
        with torch.autocast(device, dtype=dtype):
            return model(*xs)

    return cast


def _moved(
    run: Callable[[], None],
    source: List[Iterator[Dict[str, Any]]],
    slots: List[Dict[str, Any]],
    result: Dict[str, Any],
) -> Callable[[], None]:
    """Bring the next batches to the device before `run`, and what it made to the host after."""

    def moved() -> None:
        for slot in slots:
            for name, tensor in next(source[0]).items():
                slot[name].copy_(tensor)
        run()
        result["host"] = result["loss" if "loss" in result else "output"].detach().to("cpu", copy=True)

    return moved


def _synchronised(run: Callable[[], None]) -> Callable[[], None]:
    import torch

    wait = torch.cuda.synchronize

    def synchronised() -> None:
        run()
        wait()

    return synchronised
