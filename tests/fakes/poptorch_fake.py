"""How the fake PopTorch behaves: torch on the CPU does what the devices would.

A rate counts when setOptimizer was told it.
"""

from __future__ import annotations

import copy
import weakref

import contract
import poptorch_device as device
import torch
from poptorch_device import error
from poptorch_rules import RULES

# Options


def popart_set(self, key, value):
    """PopART's own options take texts, numbers of enums, and dictionaries of texts."""
    known = contract.facts()["popart_session_option_keys_via_poptorch"].get(key)
    assert known, f"Unknown Popart option {key}"
    kind = known["type"]
    if kind.startswith("Dict"):
        assert isinstance(value, dict), key
        assert all(isinstance(x, str) for pair in value.items() for x in pair), f"{key}: {value}"
    else:
        wanted = {"int": int, "int (enum)": int, "bool": bool, "str": str, "float": float}[kind]
        assert type(value) is wanted, f"{key}: {value!r} is no {kind}"
    assert value in known.get("values", {}).values() or "values" not in known, f"{key}: {value}"
    return self


def memory_proportions(self, available_memory_proportion):
    assert available_memory_proportion


def location(name):
    def told(self, use):
        contract.state(self).__dict__[name] = use
        return self

    return told


# Models


def begin_block(layer_to_call, user_id, ipu_id):
    if hasattr(layer_to_call, "_begun"):
        raise error("BeginBlock was called twice on one module")
    layer_to_call._begun = ipu_id
    return layer_to_call


def checkpoint(*tensors):
    return tensors[0] if len(tensors) == 1 else tensors


def overlapped(input_tensors=None, output_tensors=None, mode=None):
    return input_tensors if output_tensors is None else output_tensors


def for_loop(count, body, inputs):
    if not isinstance(inputs, list):
        raise ValueError("poptorch.for_loop expects input tensors (inputs) to be a list of tensors.")
    if any(st.training for st in device.TRACED):
        raise error("poptorch.for_loop() is only supported in inference")
    values = [tensor.clone() for tensor in inputs]
    for _ in range(count):
        values = listed(body(*values))
        if [(t.shape, t.dtype) for t in values] != [(t.shape, t.dtype) for t in inputs]:
            raise error("the results of a loop's body are not like its inputs")
    return values


def listed(outputs):
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


def dynamic_slice(tensor, dim, start, size, step):
    return tensor.narrow(dim, int(start), size)[(slice(None),) * dim + (slice(None, None, step),)]


def dynamic_update(input, src, dim, start, size):
    updated = input.clone()
    updated.narrow(dim, int(start), size).copy_(src)
    return updated


def inference_model(model, options):
    made = _executor(model, options, False)
    accumulated = contract.state(made).settings.get("Training.gradientAccumulation", 1)
    if accumulated != 1:
        raise error("You must set poptorch.Options().Training.gradientAccumulation to 1 for inference")
    return made


def training_model(model, options, optimizer):
    made = _executor(model, options, True)
    _take_optimiser(contract.state(made), optimizer)
    return made


def _executor(model, options, training):
    import poptorch

    made = contract.new(poptorch.PoplarExecutor)
    told, held = dict(contract.settings(options)), set()
    contract.state(made).__dict__.update(
        model=model, settings=told, training=training, compiled=False, held=held, device={}, ran=False, inputs=None
    )
    contract.state(made).__dict__.update(broken=False, tried=False)
    weakref.finalize(made, lambda: device.ATTACHED.difference_update(held))
    return made


def _take_optimiser(st, optimizer):
    """What is told of the groups now is what the next updates go by."""
    st.optimizer = optimizer
    rule = contract.state(optimizer)
    st.groups = [{key: value for key, value in g.items() if key != "params"} for g in optimizer.param_groups]
    if not hasattr(rule, "rule"):
        named = {id(parameter): name for name, parameter in st.model.named_parameters()}
        rule.names = [[named[id(p)] for p in group["params"]] for group in optimizer.param_groups]
        rule.rule = RULES[type(optimizer).__name__](rule)


def optimiser(self, **arguments):
    contract.state(self).arguments = arguments


def state_dict(self):
    held = contract.state(self)
    kept = copy.deepcopy(held.rule.memory) if hasattr(held, "rule") else None
    return {"ipu_state": kept, "ipu_param": {}, **torch.optim.Optimizer.state_dict(self)}


def load_state_dict(self, state):
    torch.optim.Optimizer.load_state_dict(self, {key: state[key] for key in ("state", "param_groups")})
    contract.state(self).rule.memory = copy.deepcopy(state["ipu_state"])


def set_optimizer(self, optimizer):
    _take_optimiser(contract.state(self), optimizer)


BEHAVIOURS = {
    "poptorch.Options._Popart.set": popart_set,
    "poptorch.Options.setAvailableMemoryProportion": memory_proportions,
    **{
        f"poptorch.TensorLocationSettings.{name}": location(name)
        for name in ("useOnChipStorage", "useReplicatedTensorSharding")
    },
    "poptorch.BeginBlock": begin_block,
    "poptorch.recomputationCheckpoint": checkpoint,
    "poptorch.set_overlap_for_input": overlapped,
    "poptorch.set_overlap_for_output": overlapped,
    "poptorch.identity_loss": lambda x, reduction: {"none": x, "sum": x.sum(), "mean": x.mean()}[reduction],
    "poptorch.for_loop": for_loop,
    "poptorch.dynamic_slice": dynamic_slice,
    "poptorch.dynamic_update": dynamic_update,
    "poptorch.inferenceModel": inference_model,
    "poptorch.trainingModel": training_model,
    **{f"poptorch.optim.{name}": optimiser for name in ("SGD", "Adam", "AdamW", "RMSprop")},
    "poptorch.optim.Optimizer.state_dict": state_dict,
    "poptorch.optim.Optimizer.load_state_dict": load_state_dict,
    "poptorch.PoplarExecutor.__call__": device.call,
    "poptorch.PoplarExecutor.compile": device.compile_model,
    "poptorch.PoplarExecutor.destroy": device.destroy,
    "poptorch.PoplarExecutor.isCompiled": lambda self: contract.state(self).compiled,
    "poptorch.PoplarExecutor.isAttachedToDevice": device.attached,
    "poptorch.PoplarExecutor.copyWeightsToHost": device.to_host,
    "poptorch.PoplarExecutor.copyWeightsToDevice": device.to_device,
    "poptorch.PoplarExecutor.setOptimizer": set_optimizer,
    "poptorch.PoplarExecutor.getLatency": device.latency,
    "poptorch.PoplarExecutor.cycleCount": device.cycle_count,
}
