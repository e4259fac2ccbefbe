"""The device of the fake PopTorch: what compiling, attaching and running do, with torch on the CPU.

Weights live on the device: the host's change when they are copied.
"""

from __future__ import annotations

import contextlib
import inspect

import contract
import fake_machine
import torch
from contract_calls import fail
from contract_calls import names as known_calls
from poptorch_lowering import operations, session

CYCLES = 1234567
BATCH = (
    "Invalid batch dimension: In the input %s, the batch dimension (%d) must be a multiple of"
    " Options.deviceIterations(%d) * (Options.replicationFactor(%d) / Options.inputReplicaGrouping.input_group_size(1))"
    " * Options.Training.gradientAccumulation(%d) = %d because it is used to calculate the batch size"
)
# The IPUs that this process holds.
ATTACHED = set()
# The model that is being traced.
TRACED = []
# Calls of the core that can be made to fail, besides those that the facts name.
LOADS, EXECUTES = "poptorch_core.loadEngineAndConnectStreams", "poptorch_core.execute"
known_calls.update((LOADS, EXECUTES))


def error(text):
    return contract.exception("poptorch.Error", text)


# Compiling and attaching


def sizes(st):
    told = st.settings
    accumulated = told.get("Training.gradientAccumulation", 1) if st.training else 1
    return told.get("deviceIterations", 1), accumulated, told.get("replicationFactor", 1)


def compile_model(self, *args, **kwargs):
    st = contract.state(self)
    if st.compiled:
        return
    iterations, accumulated, replicas = sizes(st)
    factor = iterations * accumulated * replicas
    for array in args:
        rows = array.shape[0] if array.dim() else 1
        assert rows % factor == 0, BATCH % (array.shape, rows, iterations, replicas, accumulated, factor)
    _require_known(st.model)
    TRACED.append(st)
    try:
        with _untouched(st.model), _as_on_device(st), torch.no_grad():
            st.model(*[array[: array.shape[0] // factor] for array in args])
    finally:
        TRACED.pop()
    st.inputs = [tuple(array.shape) for array in args]
    optimiser = st.optimizer if st.training else None
    lowered = session(st.model, optimiser, args, st.settings, replicas)
    contract.record("poptorch_core.lowered", {**operations(st.model, st.settings), **lowered})
    if "useOfflineIpuTarget" in st.settings and st.settings.get("logCycleCount"):
        raise error("Cycle count logging is only supported on actual IPU hardware.")
    if "useOfflineIpuTarget" not in st.settings and not st.settings.get("useIpuModel"):
        st.held.update(_acquire(st))
        ATTACHED.update(st.held)
    st.compiled = True
    fail(LOADS)
    to_device(self)


def _require_known(model):
    """What PopTorch's compiler makes of recurrent layers: one layer each, and with biases but for a GRU."""
    for module in model.modules():
        if isinstance(module, torch.nn.RNNBase):
            if module.num_layers != 1:
                raise error(f"Only {module.mode} with 1 layer supported")
            if not module.bias and module.mode != "GRU":
                raise error(f"{module.mode} without biases not supported")


def _acquire(st):
    stages = 1 + max([getattr(module, "_begun", 0) for module in st.model.modules()])
    wanted = stages * st.settings.get("replicationFactor", 1)
    there = [device for device in fake_machine.devices() if len(device.ipus) == wanted]
    if not there:
        raise error(f"No device found on the system with {wanted} IPUs")
    free = [device for device in fake_machine.free(wanted) if not ATTACHED & set(device.ipus)]
    chosen = st.settings.get("useIpuId")
    if chosen is not None:
        free = [device for device in free if device.id == chosen]
        if not free:
            raise error(f"Failed to acquire device Id {chosen}")
    if not free:
        raise error(f"Failed to acquire {wanted} IPU(s)")
    return set(free[0].ipus)


def destroy(self):
    """As `_poplar_executor.py`, it reads back what training changed. A broken device answers no more."""
    st = contract.state(self)
    if st.broken and st.training:
        untried, st.tried = not st.tried, True
        if untried or st.optimizer.host_state_is_dirty:
            raise error("the device does not answer")
    ATTACHED.difference_update(st.held)
    st.held.clear()
    st.compiled = False


def attached(self):
    return bool(contract.state(self).held)


def _compiled(self):
    st = contract.state(self)
    if not st.compiled:
        raise error("Model has not been compiled or has been destroyed.")
    return st


# Weights


def _tensors(model):
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def to_host(self):
    st = _compiled(self)
    for name, tensor in _tensors(st.model).items():
        tensor.data.copy_(st.device[name])


def to_device(self):
    st = _compiled(self)
    st.device = {name: tensor.detach().clone() for name, tensor in _tensors(st.model).items()}


# Running


def call(self, *args, **kwargs):
    st = contract.state(self)
    assert "useOfflineIpuTarget" not in st.settings, "Trying to run a model on an offline device (ConnectionType.Never)"
    if not st.compiled:
        compile_model(self, *args)
    if [tuple(array.shape) for array in args] != st.inputs:
        raise error(f"The shapes of the inputs are {[tuple(a.shape) for a in args]}, compiled for {st.inputs}")
    st.broken = True
    if st.training:
        _state_attribute(st).store(st.optimizer, True)
    fail(EXECUTES)
    st.broken, st.ran = False, True
    iterations, accumulated, replicas = sizes(st)
    results = []
    with _on_device(st), _as_on_device(st):
        for iteration in range(iterations):
            results += _iteration(st, args, iteration, accumulated, replicas)
    given = _gathered(st, _sabotaged(results, replicas), replicas)
    if st.settings.get("enableSyntheticData"):
        given = [torch.full_like(one, float("nan")) for one in given]
    return given[0] if len(given) == 1 else tuple(given)


def _state_attribute(st):
    return inspect.getattr_static(st.optimizer, "host_state_is_dirty")


def _iteration(st, args, iteration, accumulated, replicas):
    """One batch of inference or one weight update, on every replica."""
    factor = sizes(st)[0] * accumulated * replicas
    found, gradients = [], {}
    for index in range(accumulated * replicas):
        rows = [array.shape[0] // factor for array in args]
        start = iteration * accumulated * replicas + index
        arrays = [array[start * n : (start + 1) * n] for array, n in zip(args, rows)]
        # The statistics that come back are those of the first replica.
        with contextlib.nullcontext() if index % replicas == 0 else _untouched(st.model):
            with torch.set_grad_enabled(st.training):
                made = st.model(*arrays)
            made = made if isinstance(made, tuple) else (made,)
            if st.training:
                _gather_gradients(st, made[-1], gradients)
        found.append([one.detach() for one in made])
    if st.training:
        mean = 1 if fake_machine.wrong("sum", "accumulation") else accumulated * replicas
        _update(st, {name: gradient / mean for name, gradient in gradients.items()})
    return found


def _gather_gradients(st, loss, gradients):
    st.model.zero_grad()
    (loss * contract.state(st.optimizer).arguments["loss_scaling"]).backward()
    for name, parameter in st.model.named_parameters():
        if parameter.grad is not None:
            gradients[name] = gradients.get(name, 0) + parameter.grad.float()
    st.model.zero_grad()


def _update(st, gradients):
    rule = contract.state(st.optimizer)
    parameters = dict(st.model.named_parameters())
    for names, group in zip(rule.names, st.groups):
        for name in names:
            if name in gradients:
                before = parameters[name].detach().float()
                gradient = gradients[name] / rule.arguments["loss_scaling"]
                parameters[name].data.copy_(rule.rule.updated(name, before, gradient, group))


def _gathered(st, results, replicas):
    """The outputs as the output mode has them: batches one behind the other."""
    mode = st.settings.get("outputMode")
    name = getattr(mode, "name", "Default")
    name = {"Default": "Final" if st.training else "All"}.get(name, name)
    kept = results if name == "All" else results[-replicas:]
    if name == "Sum":
        kept = [
            [sum(one[place] for one in results[replica::replicas]) for place in range(len(results[0]))]
            for replica in range(replicas)
        ]
    return [torch.cat([one.reshape(-1, *one.shape[1:]) for one in column]) for column in zip(*kept)]


def _sabotaged(results, replicas):
    if fake_machine.wrong("replica", "iteration") and len(results) > 1:
        results[0 if fake_machine.wrong("iteration") else replicas - 2][0].mul_(1.01)
    return results


@contextlib.contextmanager
def _on_device(st):
    """The model with the weights of the device, which it leaves there."""
    host = {name: tensor.detach().clone() for name, tensor in _tensors(st.model).items()}
    for name, tensor in _tensors(st.model).items():
        tensor.data.copy_(st.device[name])
    try:
        yield
    finally:
        for name, tensor in _tensors(st.model).items():
            st.device[name] = tensor.detach().clone()
            tensor.data.copy_(host[name])


@contextlib.contextmanager
def _untouched(model):
    before = {name: tensor.clone() for name, tensor in model.named_buffers()}
    try:
        yield
    finally:
        for name, tensor in model.named_buffers():
            tensor.data.copy_(before[name])


@contextlib.contextmanager
def _as_on_device(st):
    """A norm of 16-bit numbers takes 32-bit statistics, which torch on the CPU does not. Group norms have strided
    groups if the session says so (`groupnormx.cpp`)."""
    true, grouped = torch.nn.functional.batch_norm, torch.nn.functional.group_norm
    strided = st.settings.get("_Popart.set", {}).get("groupNormStridedChannelGrouping", False)

    def batch_norm(x, mean, variance, weight=None, bias=None, *args, **kwargs):
        if mean is None or mean.dtype == x.dtype or weight is None:
            return true(x, mean, variance, weight, bias, *args, **kwargs)
        return true(x.float(), mean, variance, weight.float(), bias.float(), *args, **kwargs).to(x.dtype)

    def group_norm(x, groups, weight=None, bias=None, eps=1e-5):
        if not strided:
            return grouped(x, groups, weight, bias, eps)
        order = torch.arange(x.shape[1]).reshape(-1, groups).T.reshape(-1)
        normed = grouped(x[:, order], groups, None, None, eps)[:, torch.argsort(order)]
        return normed * weight[:, None, None] + bias[:, None, None]

    torch.nn.functional.batch_norm, torch.nn.functional.group_norm = batch_norm, group_norm
    try:
        yield
    finally:
        torch.nn.functional.batch_norm, torch.nn.functional.group_norm = true, grouped


# What the device says of the last run


def latency(self):
    st = contract.state(self)
    if not st.ran or st.settings.get("enableSyntheticData"):
        return (0.0, 0.0, 0.0)
    if not st.inputs:
        # The true one divides the times of the inputs by those of the outputs (`_poplar_executor.py`, 1421).
        raise ValueError("range() arg 3 must not be zero")
    return (0.001, 0.003, 0.002)


def cycle_count(self):
    st = contract.state(self)
    if not st.settings.get("logCycleCount"):
        raise error("Cycle count logging is disabled. Please set option logCycleCount to True to enable.")
    if not st.compiled or st.settings.get("useIpuModel"):
        raise error("Please run the model at least once before obtaining cycle count.")
    return CYCLES
