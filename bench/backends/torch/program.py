"""The programs of torch: inference, eval and training."""

from __future__ import annotations

import contextlib
import math
import sys
from typing import Any, Callable, Dict, Iterable, List, Mapping, Sequence, Tuple

import torch

from bench.backends.torch import compiler, lowering
from bench.backends.torch.sequences import Scan
from bench.backends.torch.training import Trainer
from bench.cases.case import Case, Settings
from bench.cases.errors import Unavailable
from bench.cases.precision import PRECISIONS
from bench.graph import Graph
from bench.group import Group
from bench.profiling import Profile
from bench.program import Arrays, Program

Tensors = Dict[str, torch.Tensor]
# Gradient modes are entered once a case instead of once a step, as in a loop written by hand.
_modes = contextlib.ExitStack()


class Inference(Program):
    """A module, and the tensors on the device with which it is called.

    slots      the tensors of each batch of a run, by name; new batches are copied into them
    whole      whether the whole model is compiled
    arguments  the same tensors as two lists: the arguments of the forward pass and those of the loss
    """

    def __init__(self, graph: Graph, weights: Mapping[str, Any], case: Case, settings: Settings, group: Group) -> None:
        super().__init__(graph, case, settings, group)
        _configure(settings)
        _modes.close()
        precision = PRECISIONS[case.precision]
        self.labels, self.forward_inputs = graph.label_inputs, graph.forward_inputs
        self.mixed = precision.weights != precision.compute
        self.compute, self.stored = getattr(torch, precision.compute), getattr(torch, precision.weights)
        self.images = any(len(node.shape) == 4 for node in graph.nodes)
        best = settings.tuning == "best"
        self.layout = torch.channels_last if self.images and best else torch.contiguous_format
        self.lowered = lowering.Lowered(graph, weights)
        self.model: Any = self.lowered.module.to(case.device, self.stored).train(self.training)
        if self.images:
            self.model = self.model.to(memory_format=self.layout)
        self.whole = False
        compiled = self._compile(best) if not self.training else False
        self.forward = self._autocast(self.model)
        self.facts = {"compiled": compiled, **({"layout": _name(self.layout)} if self.images else {})}
        self.wait = torch.cuda.synchronize if case.device == "cuda" else None
        self.slots: List[Tensors] = []
        self.arguments: List[Tuple[List[torch.Tensor], List[torch.Tensor]]] = []
        self.output: Any = None
        self.loss: Any = None

    def _compile(self, best: bool) -> bool:
        """Compile and freeze a network, or compile the scans of another model. Returns whether it did either."""
        frozen = best and any(node.block for node in self.graph.nodes) and not self.mixed and self._compiler()
        # A frozen graph is compiled under no_grad: inference tensors cannot be its constants.
        _modes.enter_context(torch.inference_mode() if best and not frozen else torch.no_grad())
        if frozen:
            torch._inductor.config.freezing = True
            self.model = torch.compile(self.model, dynamic=False)
            self.whole = True
        return frozen or (best and self._compile_scans())

    def _compile_scans(self) -> bool:
        """Compile the bodies of scans, which are elementwise. Returns whether it compiled any."""
        scans = [module for module in self.model.modules() if isinstance(module, Scan)]
        if not scans or not self._compiler():
            return False
        for scan in scans:
            scan.body = torch.compile(scan.body, dynamic=False)
        return True

    def _compiler(self) -> bool:
        """Whether torch can compile; if not, the record says why."""
        self.not_compiled = compiler.fault() or None
        return self.not_compiled is None

    def _autocast(self, model: Any) -> Callable[..., torch.Tensor]:
        """`model`; in mixed precision under autocast."""
        if not self.mixed:
            return model  # type: ignore[no-any-return]
        device, dtype = self.case.device, self.compute

        def cast(*xs: Any) -> Any:
            with torch.autocast(device, dtype=dtype):
                return model(*xs)

        return cast

    def started(self, inputs: Sequence[Mapping[str, Any]]) -> Program:
        try:
            return super().started(inputs)
        except RuntimeError as error:
            if "could not create a primitive" not in str(error):
                raise
            what = f"{self.case.workload} {self.case.mode} in {self.case.precision}"
            raise Unavailable(f"not supported: oneDNN cannot run {what}") from error

    def convert(self, batch: Mapping[str, Any]) -> Tensors:
        return {name: self._tensor(name, array) for name, array in batch.items()}

    def _tensor(self, name: str, array: Any) -> torch.Tensor:
        shape = self.graph.inputs[name].shape
        sequence = len(shape) == 3 or (array.dtype.kind == "i" and len(shape) == 2)
        tensor = lowering.to_native(array, sequence=sequence)
        if name not in self.labels and tensor.dtype != torch.uint8:
            tensor = tensor.to(torch.float32 if self.mixed else self.compute)
        return tensor.contiguous(memory_format=self.layout) if tensor.dim() == 4 else tensor

    def keep(self, batches: Iterable[Tensors]) -> None:
        for index, batch in enumerate(batches):
            if len(self.slots) > index:
                for name, tensor in batch.items():
                    self.slots[index][name].copy_(tensor)
                continue
            slot = {name: tensor.to(self.case.device, copy=True) for name, tensor in batch.items()}
            self.slots.append(slot)
            self.arguments.append(([slot[name] for name in self.forward_inputs], [slot[name] for name in self.labels]))

    # The last output is freed before the next is computed, so that its memory is reused: fresh pages once made a
    # convolution 2.4 times slower.
    def run_resident(self) -> None:
        self.output = None
        self.output = self.forward(*self.arguments[0][0])

    def copy_back(self) -> None:
        result = self.output if self.loss is None else self.loss
        self.copied = result.detach().to("cpu", copy=True)

    def outputs(self) -> Arrays:
        output = self.output.detach().to("cpu", torch.float64)
        output = output.transpose(0, 1) if output.dim() == 3 else output
        results = {"output": output.numpy()}
        if self.loss is not None:
            results["loss"] = self.loss.detach().to("cpu", torch.float64).numpy()
        return results

    def dtypes(self) -> Tuple[str, str]:
        ran = _name(self.output.dtype)
        if self.mixed and ran != PRECISIONS[self.case.precision].compute:
            raise Unavailable(f"not supported: autocast leaves {self.case.workload} in {ran} on {self.case.device}")
        return ran, _name(next((p.dtype for p in self.lowered.parameters.values()), self.stored))

    def compiles(self) -> int:
        # Eager programs do not load dynamo.
        dynamo = sys.modules.get("torch._dynamo.utils")
        return 0 if dynamo is None else int(dynamo.counters["stats"]["unique_graphs"])

    def load(self, weights: Mapping[str, Any]) -> None:
        self.lowered.load(weights)

    def predict(self, batch: Mapping[str, Any]) -> Any:
        tensors = self.convert(batch)
        self.model.eval()
        with torch.no_grad():
            output = self.forward(*[tensors[name].to(self.case.device) for name in self.forward_inputs])
        self.model.train(self.training)
        return output.to("cpu", torch.float64).numpy()

    def profile(self, steps: int) -> Profile:
        from bench.backends.torch import profiler

        return profiler.profile(self, steps, self.whole)


class Eval(Inference):
    def run_resident(self) -> None:
        self.output = None
        self.output = output = self.forward(*self.arguments[0][0])
        self.loss = self.loss_of(output, self.arguments[0][1])

    def loss_of(self, output: torch.Tensor, labels: List[torch.Tensor]) -> torch.Tensor:
        return lowering.loss(self.graph.nodes[self.graph.loss.node], output, labels)


class Training(Eval):
    def __init__(self, graph: Graph, weights: Mapping[str, Any], case: Case, settings: Settings, group: Group) -> None:
        super().__init__(graph, weights, case, settings, group)
        elements = max(1, math.prod(graph.output.shape))
        self.trainer = Trainer(self.model, case, settings.recipe, elements, group)
        self.forward = self._autocast(self.trainer.model)
        if self.trainer.scale != 1:
            self.facts["loss_scale"] = self.trainer.scale

    def run_resident(self) -> None:
        self.output = None
        self.output, self.loss = self.trainer.update(self.forward, self.loss_of, self.arguments)

    def run_without_all_reduce(self) -> None:
        with self.trainer.alone():
            self.run()

    def weights(self) -> Arrays:
        return lowering.arrays(self.lowered.parameters)

    def load(self, weights: Mapping[str, Any]) -> None:
        super().load(weights)
        self.trainer.optimiser.state.clear()

    def set_learning_rate(self, rate: float) -> None:
        self.trainer.set_learning_rate(rate)


def _configure(settings: Settings) -> None:
    torch.set_num_threads(settings.threads)
    # fp32 means fp32: no TF32 in products or convolutions, and no 16-bit sums in 16-bit products.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = settings.half_partial
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = settings.half_partial
    torch.backends.cudnn.benchmark = settings.tuning == "best"


def _name(kind: Any) -> str:
    """The name of a type or a layout, without the package."""
    return str(kind).replace("torch.", "")
