"""A stand-in for `poptorch.poptorch_core`, PopTorch's compiled core: it computes on the CPU what PopTorch's own Python
layer asks for.

An executable is a recorded graph (`poptorch_trace`). A call replays it for each batch: device iterations x accumulated
batches x replicas. Weights are on the device; the host's change when they are copied.
"""

from __future__ import annotations

import copy
import weakref

import fake_machine
import poptorch_trace
import torch
from poptorch_rules import RULES
from poptorch_trace import Trace, error, every

CYCLES = 1234567
# `_OptimizerType` and `enums` of the Python layer.
KINDS = ("SGD", "SGD", "Adam", "AdamW", "", "RMSprop")
FINAL, EVERY, ALL, SUM = range(4)
ALWAYS, ON_DEMAND, NEVER = range(3)
SUMMED, MEAN = range(2)
# Types of Python and of the options' setters, in the order in which the compiler tries them.
TYPES = ((bool, "bool"), (float, "double"), (int, "uint64"), (str, "string"), ((set, list, tuple, dict), "container"))
# Options with setters of their own, or that only the Python layer reads.
OWN = ("patterns", "patterns_level", "anchored_tensors", "compilation_progress_bar_fn", "available_memory_proportion")
# The IPUs that this process holds.
ATTACHED = set()
# Of every graph that was compiled: its options, the IPUs that its blocks begin on, and how many checkpoints and
# operations it has.
COMPILED = []
# What the sources of the checkout say.
FACTS = poptorch_trace.Facts()


class Error(Exception):
    pass


class RecoverableError(Error):
    pass


class UnrecoverableError(Error):
    pass


class TracingMode:
    PopART = 0

    def __init__(self, *args):
        pass


class CompilerOptions:
    pass


def _nothing(*args, **kwargs):
    pass


setLogLevel = setPopartLogLevel = setCustomCodeletsPath = poptorchAtExit = finalizeGraph = startDispatch = _nothing
importPoptorchMetadataFromFile = _nothing


# Tracing

ACTIVE = []


def createGraph(mode, inputs, options):
    ACTIVE.append(Trace(inputs))
    ACTIVE[-1].__enter__()


def startParametersMove():
    ACTIVE[-1].moving = "parameters"


def startOutputsMove():
    ACTIVE[-1].moving = "outputs"


def endParametersMove():
    ACTIVE[-1].moving = ""


endOutputsMove = endParametersMove


def mapParamsToNames(names, tensors):
    ACTIVE[-1].name_parameters(names, tensors)
    # What moved them is no part of the graph.
    ACTIVE[-1].program.clear()


def endDispatch(failed):
    if ACTIVE:
        ACTIVE[-1].__exit__(None, None, None)
        TRACED.append(ACTIVE.pop())


TRACED = []


def destroyDispatcher():
    if ACTIVE:
        endDispatch(True)
    TRACED.clear()


def getIpuTensorId(tensor):
    return tensor.index


# Compiling


class Executable:
    """A recorded graph, with its weights."""

    def __init__(self, trace, options, training, optimiser):
        self.trace, self.options, self.training = trace, options, training
        self.weights, self.held, self.ran = {}, set(), False
        self.floats = {}
        self.iterations, self.replicas = options["device_iterations"], options["replication_factor"]
        self.accumulated = options["gradient_accumulation"]
        self.synthetic = options.get("syntheticDataMode", 0) != 0
        if training:
            self.optimiser = optimiser
            self.rule = RULES[KINDS[optimiser["optimizer_type"]]](self)
        weakref.finalize(self, ATTACHED.difference_update, self.held)

    @property
    def arguments(self):
        """What a rule of the optimiser is told, by the names of torch."""
        told = {name: value for name, (value, _) in self.optimiser["groups"][0].items()}
        named = {name: told.get(name) for name in ("momentum", "alpha", "eps")}
        named["use_tf_variant"] = self.optimiser.get("useTfVariant", False)
        named["betas"] = (told["beta1"], told["beta2"]) if "beta1" in told else None
        return named

    @property
    def modes(self):
        return self.options["output_mode"], self.options["output_return_period"]


def require_known(options):
    """What the parser of options and their setters refuse (`SessionOptionsParser.cpp`, `SessionOptions.cpp`)."""
    for name, value in options.items() if FACTS.options else ():
        if name in OWN or name.startswith("location_") or value in ({}, [], set()):
            continue
        kind = next((kind for types, kind in TYPES if isinstance(value, types)), type(value).__name__)
        if FACTS.options.get(name) != kind:
            raise error(f"Unknown {kind} option {name}")


def compileWithManualTracing(options, accessor, training, optimiser, anchors):
    trace = TRACED[-1]
    found = {"ipus": trace.ipus, "checkpoints": trace.checkpoints, "operations": sum(1 for _ in every(trace.program))}
    COMPILED.append({"options": options, **found})
    require_known(options)
    unsupported = trace.unsupported(FACTS.handlers) if FACTS.handlers else ()
    if unsupported:
        raise error(f"Unsupported ops found in compiled model: [{', '.join('aten::' + name for name in unsupported)}].")
    if training and any(op.function._schema.name == "poptorch::end_for_loop" for op in trace.program):
        raise error("poptorch.for_loop() is only supported in inference")
    if training and trace.loss is None:
        raise error("Couldn't find a loss in graph")
    made = Executable(trace, options, training, optimiser)
    if options["connection_type"] == ALWAYS:
        attachToDevice(made)
    return made


def attachToDevice(executable):
    options = executable.options
    if options.get("use_model"):
        return
    wanted = len(set(executable.trace.ipus) or {0}) * executable.replicas
    if wanted & (wanted - 1):
        raise error(f"The model specifies the use of {wanted} IPUs, however PopTorch must reserve a power of 2")
    chosen = options.get("ipu_id")
    free = [device for device in fake_machine.free(wanted) if not ATTACHED & set(device.ipus)]
    free = [device for device in free if chosen in (None, device.id)]
    if not free:
        raise error(f"Failed to acquire {f'device Id {chosen}' if chosen is not None else f'{wanted} IPU(s)'}")
    executable.held.update(free[0].ipus)
    ATTACHED.update(executable.held)


def loadEngineAndConnectStreams(executable):
    if not isAttachedToDevice(executable):
        attachToDevice(executable)


def isAttachedToDevice(executable):
    return bool(executable.held) or bool(executable.options.get("use_model"))


def detachFromDevice(executable):
    ATTACHED.difference_update(executable.held)
    executable.held.clear()


# Weights and state


def copyWeightsToDevice_impl(executable, names, tensors):
    used = set(executable.trace.names.values())
    executable.weights = {
        name: t.detach().clone().as_subclass(torch.Tensor) for name, t in zip(names, tensors) if name in used
    }


def copyWeightsToHost_impl(executable, names, tensors):
    for name, tensor in zip(names, tensors):
        known = executable.weights[name]
        if known.is_floating_point():
            # The true one copies bytes to the address.
            if (tensor.dtype, tensor.shape) != (known.dtype, known.shape):
                raise error(f"{name} is {tensor.dtype} on the host and {known.dtype} on the device")
            tensor.detach().copy_(known)


def updateOptimizers(executable, optimiser):
    for old, new in zip(
        [executable.optimiser["defaults"], *executable.optimiser["groups"]],
        [optimiser["defaults"], *optimiser["groups"]],
    ):
        for name, (value, constant) in old.items():
            if constant and new[name][0] != value:
                raise error(f"Cannot change constant optimizer value {name} from {value} to {new[name][0]}")
    executable.optimiser = optimiser


def readOptimizerState(executable):
    return {"ipu_state": copy.deepcopy(executable.rule.memory), "ipu_param": {}}


def writeOptimizerState(executable, state):
    executable.rule.memory = copy.deepcopy(state["ipu_state"])


def setRngState(executable, seed, state):
    pass


def getRandomSeed(executable):
    return 42


def getRngState(executable):
    return [0]


# Running


def execute(executable, inputs):
    factor = executable.iterations * executable.accumulated * executable.replicas
    results = []
    for iteration in range(executable.iterations):
        results += _iteration(executable, inputs, iteration, factor)
    executable.ran = True
    if fake_machine.wrong("replica", "iteration"):
        results[0][0].mul_(1.01)
    given = [_anchored(executable, list(column)) for column in zip(*results)]
    return [torch.full_like(one, float("nan")) for one in given] if executable.synthetic else given


def _iteration(executable, inputs, iteration, factor):
    """The outputs of the batches of one device iteration, the replicas of a batch side by side."""
    trace, found, gradients = executable.trace, [], {}
    batches = factor // executable.iterations
    strided = executable.options.get("groupNormStridedChannelGrouping", False)
    trained = [name for names in trace.groups.values() for name in names]
    for index in range(batches):
        rows = [tensor.shape[0] // factor if tensor.dim() else 1 for tensor in inputs]
        start = iteration * batches + index
        arrays = [tensor[start * n : (start + 1) * n] if tensor.dim() else tensor for tensor, n in zip(inputs, rows)]
        # The buffers that come back are those of the first replica.
        weights = executable.weights if index % executable.replicas == 0 else copied(executable.weights)
        leaves = {name: weights[name].detach().requires_grad_() for name in trained}
        with torch.set_grad_enabled(executable.training):
            values = trace.replayed(arrays, {**weights, **leaves}, strided)
        if executable.training:
            scale = executable.optimiser["defaults"]["lossScaling"][0]
            (values[trace.loss].float() * scale).sum().backward()
            for name, leaf in leaves.items():
                if leaf.grad is not None:
                    gradients[name] = gradients.get(name, 0) + leaf.grad.float()
        found.append([_output(values[place].detach()) for place in trace.outputs])
    if executable.training:
        mean = executable.options["accumulation_and_replication_reduction_type"] == MEAN
        mean = mean and not fake_machine.wrong("sum", "accumulation")
        _update(executable, {name: each / (batches if mean else 1) for name, each in gradients.items()})
    return found


def copied(weights):
    return {name: tensor.clone() for name, tensor in weights.items()}


def _output(tensor):
    kinds = {torch.int64: torch.int32, torch.float64: torch.float32}
    return tensor.to(kinds.get(tensor.dtype, tensor.dtype)).clone()


def _update(executable, gradients):
    scale = executable.optimiser["defaults"]["lossScaling"][0]
    for index, names in executable.trace.groups.items():
        told = executable.optimiser["groups"][index]
        group = {"lr": told["learningRate"][0], "weight_decay": told["weightDecay"][0]}
        for name in names:
            if name in gradients:
                weight = executable.weights[name]
                weight.copy_(executable.rule.updated(name, weight.float(), gradients[name] / scale, group))


def _anchored(executable, batches):
    """An output as its anchor returns it (`popartBatchDimForAnchor`, `PoplarExecutable::run`)."""
    (mode, period), replicas = executable.modes, executable.replicas
    if mode == SUM:
        batches = [sum(batches[replica::replicas]) for replica in range(replicas)]
    elif mode == FINAL:
        batches = batches[-replicas:]
    elif mode == EVERY:
        batches = [one for place, one in enumerate(batches) if (place // replicas + 1) % period == 0]
    if len(batches) == 1:
        return batches[0]
    return torch.cat([one.reshape(-1, *one.shape[1:]) for one in batches])


def getTimestamps(executable):
    """Seconds: a batch takes a millisecond from its input to its output. Synthetic data has none."""
    steps = executable.iterations * executable.accumulated if executable.ran and not executable.synthetic else 0
    starts = [0.001 * step for step in range(steps)]
    ends = [start + 0.001 for start in starts]
    ends = ends if executable.modes[0] == ALL else ends[-1:]
    inputs, outputs = range(len(executable.trace.inputs)), range(len(executable.trace.outputs))
    return [[starts for _ in inputs], [starts for _ in inputs], [ends for _ in outputs], [ends for _ in outputs]]


def cycleCount(executable):
    if not executable.ran:
        raise error("Please run the model at least once before obtaining cycle count.")
    return CYCLES
