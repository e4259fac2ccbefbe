"""What the fake popart computes: a model's numbers by ONNX Runtime or torch, moved and counted as PopART does.

A model is refused for what PopART 3.4 refuses. Host and device keep weights of their own; what was never written to an
array is not a number.
"""

from __future__ import annotations

import itertools

import contract
import fake_machine
import numpy as np
import popart_models as models
import popart_optimisers as optimisers
from contract import new, state
from popart_lowering import operations, session

HELD = {}


def refuse(text, kind="popart.popart_exception"):
    raise contract.exception(kind, text)


# ---- devices -------------------------------------------------------------------------------------


def _acquired(index):
    import popart

    listed = {device.id: device for device in fake_machine.devices()}
    if index not in listed:
        refuse(f"No device with id {index}")
    wanted = set(listed[index].ipus)
    if wanted & (fake_machine.held() | {ipu for ipus in HELD.values() for ipu in ipus}):
        return None
    device = new(popart.DeviceInfo, id=index, numIpus=len(wanted), isAttached=True)
    HELD[id(device)] = wanted
    return device


def try_acquire(self, numIpus, **options):
    if numIpus & (numIpus - 1):
        refuse(f"You have attempted to acquire {numIpus} IPUs; the number must be a power of 2")
    for device in fake_machine.devices():
        if len(device.ipus) == numIpus:
            found = _acquired(device.id)
            if found is not None:
                return found
    return None


def without_device(kind):
    def made(self, told):
        import popart

        device = new(popart.DeviceInfo, id=-1, numIpus=int(told.get("numIPUs", 1)), isAttached=False)
        state(device).kind = kind
        return device

    return made


def detach(self, *raised):
    HELD.pop(id(self), None)
    state(self).isAttached = False


# ---- sessions ------------------------------------------------------------------------------------


class Session:
    """What a session knows: `up` is the host's copy that goes to the device, `down` the one that comes from it."""

    def __init__(self, given, training):
        self.options, self.flow, self.device = given["userOptions"], given["dataFlow"], given["deviceInfo"]
        self.training = training
        self.model = models.checked(given["fnModel"], training, self.options, given.get("loss"), refuse)
        self.types = models.types(self.model)
        options = self.options
        lowered = session(self.model, options, given.get("optimizer"))
        contract.record("popart.lowered", {**operations(self.model, options), **lowered})
        self.replicas = options.replicatedGraphCount if options.enableReplicatedGraphs else 1
        self.accumulated = options.accumulationFactor if options.enableGradientAccumulation else 1
        self.steps = state(self.flow).steps
        stages = models.placed(self.model, options, refuse)
        if state(self.device).numIpus != self.replicas * stages:
            refuse(f"{self.replicas} replicas of {stages} IPUs on a device of {state(self.device).numIpus}")
        batches = self.accumulated if training else self.steps
        if options.enablePipelining and batches < (2 * stages - 1 if training else stages):
            refuse(f"pipeline of {stages} stages is not filled by {batches} batches")
        self.up = {one.name: models.array(one) for one in self.model.graph.initializer}
        self.variable = training or not options.constantWeights
        self.on_device = None if self.variable else self.up
        self.down = {name: np.full_like(self.up[name], np.nan) for name in self.up if self.variable}
        self.optimiser = given.get("optimizer")
        self.memory = {}
        self.prepared = self.ran = False

    @property
    def synthetic(self):
        return self.options.syntheticDataMode.name != "Off"

    def counts(self):
        return self.steps, self.accumulated, self.replicas


def made(training):
    def init(self, **given):
        state(self).session = Session(given, training)

    return init


def prepare(self, loadEngine):
    session = state(self).session
    session.prepared = loadEngine
    if loadEngine and getattr(state(session.device), "kind", "") == "offline":
        refuse("cannot load an engine onto an offline device", "popart.popart_runtime_error")


def ready(self):
    session = state(self).session
    if not session.prepared:
        refuse("prepareDevice must be called first", "popart.popart_runtime_error")
    return session


def anchor_arrays(self):
    session = ready(self)
    found = {}
    for name, kind in state(session.flow).anchors.items():
        shape, dtype = session.types[name]
        leading = session.counts() if state(kind).kind == "all" else session.counts()[-1:]
        found[name] = np.full([*(size for size in leading if size != 1), *shape], np.nan, dtype)
    return found


def weights_from_host(self):
    session = ready(self)
    session.on_device = {name: array.copy() for name, array in session.up.items()}
    session.memory = {}


def weights_to_host(self):
    session = ready(self)
    if not session.synthetic:
        session.down = {name: array.copy() for name, array in session.on_device.items()}


def read_weights(self, weights):
    for name, array in state(weights).arrays.items():
        array[...] = state(self).session.down[name]


def write_weights(self, weights):
    up = state(self).session.up
    for name, array in state(weights).arrays.items():
        if (array.shape, array.dtype) != (up[name].shape, up[name].dtype):
            refuse(f"trying to reset weights using tensor with non matching tensor info. Tensor ID: {name}")
        up[name] = array.copy()


def update_optimiser(self, optimizer):
    session = ready(self)
    if optimisers.constants(session.optimiser) != optimisers.constants(optimizer):
        refuse("optimizer is not a valid replacement: what was constant has changed")
    session.optimiser = optimizer


def run(self, stepio, debugName):
    session = ready(self)
    if session.on_device is None:
        refuse("Must call weightsFromHost before run, if the weights are not constant")
    session.ran = True
    inputs, anchors = state(stepio).inputs, state(stepio).outputs
    if session.synthetic:
        return
    fed = {name: _batches(session, name, inputs) for name in models.inputs(session.model)}
    results = []
    for step in range(session.steps):
        grads, moved = [], {}
        for index, replica in itertools.product(range(session.accumulated), range(session.replicas)):
            place = (step, index, replica)
            batch = {name: array[place] for name, array in fed.items()}
            weights = session.on_device
            if fake_machine.wrong("replica") and replica:
                weights = {name: array * array.dtype.type(1.01) for name, array in weights.items()}
            scale = optimisers.loss_scale(session.optimiser) if session.training else 0.0
            found, own, moved = models.computed(session.model, weights, batch, scale, session.options)
            results.append({name: found[name] for name in anchors})
            if fake_machine.wrong("iteration") and not replica and (step, index) == (0, 0):
                results[-1] = {name: array * 2 for name, array in results[-1].items()}
            grads.append(own)
        if session.training:
            _update(session, grads, moved)
    for name, array in anchors.items():
        _returned(session, name, array, np.stack([result[name] for result in results]))


def _batches(session, name, inputs):
    shape, dtype = session.types[name]
    if name not in inputs:
        refuse(f"no input {name}")
    array = inputs[name]
    if array.dtype != dtype:
        refuse(f"Type discrepancy for tensor {name}: {array.dtype}, the model has {dtype}")
    wanted = int(np.prod([*session.counts(), *shape]))
    if array.size != wanted:
        refuse(f"Unexpected number of elements for tensor {name}: {array.size}, expected {wanted}")
    return array.reshape([*session.counts(), *shape])


def _update(session, grads, moved):
    count = 1
    averaged = session.options.accumulationAndReplicationReductionType.name == "Mean"
    if averaged and not fake_machine.wrong("sum", "accumulation"):
        count = len(grads)
    mean = {name: sum(own[name].astype("float64") for own in grads) / count for name in grads[0]}
    if fake_machine.wrong("step"):
        mean = {name: array * 1.2 for name, array in mean.items()}
    new_weights = optimisers.stepped(session.optimiser, session.on_device, mean, session.memory)
    session.on_device = {**new_weights, **moved}


def _returned(session, name, array, copies):
    kind = state(state(session.flow).anchors[name]).kind
    by_replica = copies.reshape([-1, session.replicas, *copies.shape[1:]])
    if kind == "sum":
        copies = by_replica.sum(0)
    elif kind == "final":
        copies = by_replica[-1]
    array[...] = copies.reshape(array.shape)


def cycle_count(self, id):
    session = state(self).session
    if not session.options.instrumentWithHardwareCycleCounter or not session.ran:
        refuse("the cycle counter is not instrumented, or nothing has run", "popart.popart_runtime_error")
    return 1330


def data_flow(self, batchesPerStep, anchorTensors, **rest):
    state(self).steps, state(self).anchors = batchesPerStep, dict(anchorTensors)


def return_type(self, anchorReturnTypeString, **rest):
    state(self).kind = anchorReturnTypeString.lower()


def step_io(self, inputs, outputs):
    state(self).inputs, state(self).outputs = inputs, outputs


def weights_io(self, weights):
    state(self).arrays = weights


METHODS = {
    "prepareDevice": prepare,
    "initAnchorArrays": anchor_arrays,
    "weightsFromHost": weights_from_host,
    "weightsToHost": weights_to_host,
    "readWeights": read_weights,
    "writeWeights": write_weights,
    "getCycleCount": cycle_count,
    "run": run,
}
BEHAVIOURS = {
    "popart.versionString": lambda: "3.4.0+fake",
    "popart.DeviceManager.tryAcquireAvailableDevice": try_acquire,
    "popart.DeviceManager.tryAcquireDeviceById": lambda self, id, **options: _acquired(id),
    "popart.DeviceManager.createIpuModelDevice": without_device("model"),
    "popart.DeviceManager.createOfflineIPUDevice": lambda self, opts: without_device("offline")(self, opts),
    "popart.DeviceInfo.__exit__": detach,
    "popart.DeviceInfo.detach": detach,
    "popart.DataFlow": data_flow,
    "popart.AnchorReturnType": return_type,
    "popart.PyStepIO": step_io,
    "popart.PyWeightsIO": weights_io,
    "popart.InferenceSession": made(training=False),
    "popart.TrainingSession": made(training=True),
    "popart.TrainingSession.updateOptimizerFromHost": update_optimiser,
    **{
        f"popart.{kind}Session.{name}": method for kind in ("Inference", "Training") for name, method in METHODS.items()
    },
    **optimisers.BEHAVIOURS,
}
