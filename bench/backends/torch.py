"""PyTorch, on the CPU and on CUDA.

Tuning   best: channels-last images and inference mode; the body of a scan of elementwise operations
         (HMC) is compiled, where there is a C++ compiler: each of its operations costs more to call
         than to compute. Nothing else is: a compiler gains nothing on a fused recurrent layer.
         default: contiguous tensors, no_grad, eager
"""

from __future__ import annotations

import math
import shutil
from contextlib import ExitStack
from functools import partial
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from bench.case import Case, Settings, Unavailable
from bench.graph import Graph
from bench.precision import PRECISIONS, loss_scale
from bench.step import Arrays, Program

PACKAGE = "torch"
DEVICES = ("cpu", "cuda")
MODES = ("inference", "eval", "training")

# Gradient modes are entered once a case, not once a step, as a loop written by hand would do.
_modes = ExitStack()


def unsupported(precision: str, mode: str, device: str) -> Optional[str]:
    return None


def environment(settings: Settings, device: str) -> Dict[str, str]:
    threads = str(settings.threads)
    return {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "TORCHINDUCTOR_COMPILE_THREADS": "1"}


def version() -> str:
    import torch

    return str(torch.__version__)


def compile(
    graph: Graph, weights: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]], case: Case, settings: Settings
) -> Program:
    import torch

    from bench.backends import _torch_modules as modules

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
    layout: Any = torch.channels_last if images and best else torch.contiguous_format
    model = lowered.module.to(case.device, held).train(training)
    if images:
        model = model.to(memory_format=layout)
    if not training:
        _modes.enter_context(torch.inference_mode() if best else torch.no_grad())

    def native(name: str, array: Any) -> Any:
        tensor = modules.to_native(array, sequence=len(graph.inputs[name].shape) == 3 or array.dtype.kind == "i")
        if name in labels:
            return tensor
        tensor = tensor.to(compute if not mixed else torch.float32)
        return tensor.contiguous(memory_format=layout) if tensor.dim() == 4 else tensor

    nodes = graph.nodes
    labels = [f"input{t.node}" for t in nodes[graph.loss.node].inputs[1:]] if graph.loss.node >= 0 else []
    fed = [name for name in graph.inputs if name not in labels]
    host: List[Dict[str, Any]] = []
    resident: Dict[str, Any] = {}
    result: Dict[str, Any] = {}

    def feed(batches: Sequence[Mapping[str, Any]]) -> None:
        host[:] = [{name: native(name, array) for name, array in batch.items()} for batch in batches]
        for name, tensor in host[0].items():
            if name in resident:
                resident[name].copy_(tensor)
            else:
                resident[name] = tensor.to(case.device, copy=True)

    feed(inputs)
    xs = [resident[name] for name in fed]
    ys = [resident[name] for name in labels]
    compiled = best and not training and _compile_scans(model)
    forward: Callable[[], Any] = partial(model, *xs)
    if mixed:
        forward = _autocast(forward, case.device, compute)

    def loss_of(output: Any) -> Any:
        return modules.loss(nodes[graph.loss.node], output, ys)

    scale = loss_scale(case.precision, max(1, _elements(graph)))
    optimiser: Any = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.0) if training else None

    # The last output goes before the next is made: two alive at once would not reuse memory, and
    # fresh pages once made a convolution 2.4 times slower.
    def run_inference() -> None:
        result["output"] = None
        result["output"] = forward()

    def run_eval() -> None:
        result["output"] = None
        result["output"] = output = forward()
        result["loss"] = loss_of(output)

    def run_training() -> None:
        result["output"] = None
        optimiser.zero_grad(set_to_none=True)
        output = forward()
        loss = loss_of(output)
        (loss * scale if scale != 1 else loss).backward()
        optimiser.step()
        # Detached, so that the graph behind them is gone before the next one is built.
        result["output"], result["loss"] = output.detach(), loss.detach()

    run = {"inference": run_inference, "eval": run_eval, "training": run_training}[case.mode]
    if settings.data == "generated":
        run = _moved(run, host, resident, result)
    if case.device == "cuda":
        run = _synchronised(run)

    def outputs() -> Arrays:
        output = result["output"].detach().to("cpu", torch.float64)
        output = output.transpose(0, 1) if output.dim() == 3 else output
        found = {"output": output.numpy()}
        if "loss" in result:
            found["loss"] = result["loss"].detach().to("cpu", torch.float64).numpy()
        return found

    def load(values: Mapping[str, Any]) -> None:
        with torch.no_grad():
            for name, parameter in lowered.parameters.items():
                parameter.copy_(torch.from_numpy(values[name]))

    def set_learning_rate(rate: float) -> None:
        optimiser.param_groups[0]["lr"] = rate / scale

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
    return Program(
        run,
        feed,
        outputs,
        compute=ran,
        held=str(next((p.dtype for p in lowered.parameters.values()), held)).replace("torch.", ""),
        weights=(lambda: modules.arrays(lowered.parameters)) if training else None,
        load=load,
        set_learning_rate=set_learning_rate if training else None,
        facts=_facts(compiled, layout, scale, images),
    )


def _configure(settings: Settings) -> None:
    import torch

    torch.set_num_threads(settings.threads)
    # fp32 means fp32: no TF32 in products or convolutions, and no 16-bit sums in 16-bit products.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = settings.tuning == "best"


def _compile_scans(model: Any) -> bool:
    """Compile the bodies of explicit loops that are all elementwise; say whether there was one."""
    import torch

    from bench.backends._torch_modules import Scan

    found = [module for module in model.modules() if isinstance(module, Scan)]
    if not found or shutil.which("c++") is None:
        return False
    for scan in found:
        scan.body = torch.compile(scan.body, dynamic=False)
    return True


def _facts(compiled: bool, layout: Any, scale: float, images: bool) -> Dict[str, Any]:
    facts: Dict[str, Any] = {"compiled": compiled}
    if images:
        facts["layout"] = str(layout).replace("torch.", "")
    if scale != 1:
        facts["loss_scale"] = scale
    return facts


def _elements(graph: Graph) -> int:
    return math.prod(graph.output.shape)


def _autocast(forward: Callable[[], Any], device: str, dtype: Any) -> Callable[[], Any]:
    import torch

    def cast() -> Any:
        with torch.autocast(device, dtype=dtype):
            return forward()

    return cast


def _moved(
    run: Callable[[], None], host: List[Dict[str, Any]], resident: Dict[str, Any], result: Dict[str, Any]
) -> Callable[[], None]:
    """Bring the next host batch to the device before `run`, and what it made to the host after."""
    turn = [0]

    def moved() -> None:
        batch = host[turn[0] % len(host)]
        turn[0] += 1
        for name, tensor in batch.items():
            resident[name].copy_(tensor)
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
