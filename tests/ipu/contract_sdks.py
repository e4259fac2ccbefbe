"""The differences between the IPU backends, as data for `test_ipu_contract.py`: names of calls, setters and exceptions.
Also the programs that all three must compile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

IPU = "tensorflow.python.ipu"
# Programs by name, as changes of an fp32 inference of `dense` on one IPU with batches from the host.
TRAINED = {"mode": "training"}
MOMENTUM = {**TRAINED, "precision": "fp16", "recipe": {"optimiser": "momentum", "loss_scaling": 64.0}}
NETWORK = {"workload": "resnet8"}
PIPELINE = {**NETWORK, **TRAINED, "schedule": ""}


def poplar(**options: Any) -> Dict[str, Any]:
    return {"poplar": options}


PROGRAMS: Dict[str, Dict[str, Any]] = {
    "inference": {},
    "eval": {"mode": "eval"},
    "training": TRAINED,
    "accumulated": {**TRAINED, "recipe": {"gradient_accumulation": 3}},
    "replicas": {**TRAINED, "replicas": 2, "batches_per_step": 2},
    "timed eval": {"mode": "eval", **poplar(output_mode="")},
    "timed training": {
        **TRAINED,
        "recipe": {"gradient_accumulation": 2},
        "batches_per_step": 3,
        **poplar(output_mode=""),
    },
    "final": {"batches_per_step": 3, **poplar(output_mode="final")},
    "sum": {"batches_per_step": 3, **poplar(output_mode="sum")},
    "synthetic": {"data": "synthetic", **poplar(output_mode="")},
    "zeros": {"data": "synthetic", "zero_values": True, **poplar(output_mode="")},
    "synthetic training": {**TRAINED, "data": "synthetic", **poplar(output_mode="")},
    "a chain that draws": {"workload": "hmc", "data": "synthetic", **poplar(output_mode="")},
    "a chain that draws, generated": {"workload": "hmc"},
    "mixed precision": {"precision": "fp16m"},
    "16 bits": {**TRAINED, "precision": "fp16"},
    "a scale of the loss": {**TRAINED, "precision": "fp16", "recipe": {"loss_scaling": 64.0}},
    "pipeline": PIPELINE,
    "sequential pipeline": {**NETWORK, **TRAINED, "schedule": "sequential"},
    "--available-memory-proportion": poplar(available_memory_proportion=(0.3,)),
    "--available-memory-proportion, an IPU each": {**PIPELINE, **poplar(available_memory_proportion=(0.2, 0.4))},
    "--partials-type-matmul": poplar(partials_type_matmul="half"),
    "--partials-type-conv": poplar(partials_type_conv="half"),
    "--half-partial": {"half_partial": True},
    "--internal-exchange-target": poplar(internal_exchange_target="balanced"),
    "--prefetch off": poplar(prefetch=False),
    "--min-latency": {"min_latency": True},
    "--num-io-tiles": {**TRAINED, **poplar(num_io_tiles=32)},
    "--stochastic-rounding on": poplar(stochastic_rounding=True),
    "--stochastic-rounding off": poplar(stochastic_rounding=False),
    "--stable-norm": poplar(stable_norm=True),
    "--conv-dithering": poplar(conv_dithering=True),
    "--partials-type-conv and --conv-dithering": poplar(partials_type_conv="half", conv_dithering=True),
    "--variable-offloading on": {**TRAINED, **poplar(variable_offloading=True)},
    "--variable-offloading off": {**TRAINED, **poplar(variable_offloading=False)},
    "--replicated-tensor-sharding": {**TRAINED, "replicas": 2, **poplar(replicated_tensor_sharding=True)},
    "--combined-momentum on": {**MOMENTUM, **poplar(combined_momentum=True)},
    "--combined-momentum off": {**MOMENTUM, **poplar(combined_momentum=False)},
    "--session-options": {
        **TRAINED,
        **poplar(
            session_options={
                "explicitRecomputation": "true",
                "accumulateOuterFragmentSettings.schedule": "OverlapMemoryOptimized",
                "replicatedCollectivesSettings.mergeAllReduceCollectives": "true",
            }
        ),
    },
    "--max-cross-replica-buffer-size": poplar(max_cross_replica_buffer_size=4096),
    "--engine-options": poplar(engine_options={"opt.maxCompilationThreads": "3"}),
    "all engine options": poplar(
        internal_exchange_target="cycles", prefetch=False, engine_options={"debug.retainDebugInformation": "true"}
    ),
    "--profile": poplar(profile="reports"),
    "--cycle-count": poplar(cycle_count=True),
    "--ipu-model": poplar(ipu_model=True),
    "--compile-only": poplar(compile_only="ipu21"),
    "--compile-only to train": {**TRAINED, **poplar(compile_only="ipu2")},
    "--executable-cache": poplar(executable_cache="cache"),
    "--device-id": poplar(device_id=2),
    "--recompute auto": {**NETWORK, **TRAINED, "recipe": {"recompute": "auto"}},
    "--recompute auto in a pipeline": {**PIPELINE, "recipe": {"recompute": "auto"}},
    "--recompute manual": {**NETWORK, **TRAINED, "recipe": {"recompute": "manual", "recompute_layers": "layer2"}},
    "--recompute manual in a pipeline": {**PIPELINE, "recipe": {"recompute": "manual", "recompute_layers": "layer1"}},
    "--pipeline-schedule grouped": {**NETWORK, "schedule": "grouped"},
    "--pipeline-schedule interleaved": {**NETWORK, "schedule": "interleaved"},
    "--num-io-tiles in a pipeline": {**PIPELINE, **poplar(num_io_tiles=32)},
    "--no-all-reduce": {**TRAINED, "replicas": 2, "all_reduce": False},
    "--optimiser lars": {**TRAINED, "recipe": {"optimiser": "lars"}},
    "a loop in training": {"workload": "lstm", "variant": "rnn_impl=cell", **TRAINED},
    "--recompute manual in an interleaved pipeline": {
        **NETWORK,
        **TRAINED,
        "schedule": "interleaved",
        "recipe": {"recompute": "manual", "recompute_layers": "layer1"},
    },
    "--pipeline-splits of a layer": {**TRAINED, "schedule": ""},
    "--available-memory-proportion, several without a pipeline": {
        **TRAINED,
        **poplar(available_memory_proportion=(0.1, 0.2)),
    },
    "--replicated-tensor-sharding without --variable-offloading": {
        **TRAINED,
        "replicas": 2,
        **poplar(replicated_tensor_sharding=True, variable_offloading=False),
    },
}
# The kinds of workloads whose operations differ, and the options that operations read, in two programs.
KINDS: Dict[str, Dict[str, Any]] = {
    "product": {"workload": "dense"},
    "convolution": {"workload": "conv"},
    "grouped convolution": {"workload": "grouped_conv"},
    **{f"fused {kind}": {"workload": kind} for kind in ("rnn", "lstm", "gru")},
    **{f"{kind} cell": {"workload": kind, "variant": "rnn_impl=cell"} for kind in ("rnn", "lstm", "gru")},
    "fused lstm in 16 bits": {"workload": "lstm", "precision": "fp16"},
    "fused gru in 16 bits": {"workload": "gru", "precision": "fp16"},
    "network": NETWORK,
    "trained network": {**NETWORK, **TRAINED},
    "network with group norms": {**NETWORK, "variant": "group"},
    "network with fast group norms": {**NETWORK, "variant": "fast"},
}
OPERATIONS: Dict[str, Dict[str, Any]] = {
    "partials": poplar(partials_type_matmul="half", partials_type_conv="half"),
    "others": {
        "half_partial": True,
        **poplar(available_memory_proportion=(0.3,), conv_dithering=True, stable_norm=True),
    },
}
# Programs of which options that no single operation reads have an effect or none, by what each of them is about.
PLACED = {**TRAINED, "replicas": 2, **poplar(variable_offloading=True, replicated_tensor_sharding=True)}
HURRIED = poplar(stochastic_rounding=True, prefetch=False)
SESSIONS: Dict[str, Dict[str, Any]] = {
    "state of 64 numbers": {**PLACED, "recipe": {"optimiser": "momentum"}},
    "state of 64 numbers of 16 bits": {**PLACED, "precision": "fp16", "recipe": {"optimiser": "momentum"}},
    "state of 8100 numbers": {**PLACED, "dimensions": {"units": 90}, "recipe": {"optimiser": "adam"}},
    "state of 8281 numbers": {**PLACED, "dimensions": {"units": 91}, "recipe": {"optimiser": "rmsprop"}},
    "no state": PLACED,
    "a combined buffer": {
        **PLACED,
        "dimensions": {"units": 91},
        "recipe": {"optimiser": "momentum", "gradient_accumulation": 2},
        "poplar": {**PLACED["poplar"], "combined_momentum": True},
    },
    "a combined buffer, not accumulated": {
        **PLACED,
        "dimensions": {"units": 91},
        "recipe": {"optimiser": "momentum"},
        "poplar": {**PLACED["poplar"], "combined_momentum": True},
    },
    "32 bits from the host": HURRIED,
    "16 bits from the host": {"precision": "fp16", **HURRIED},
    "mixed precision from the host": {"precision": "fp16m", **HURRIED},
    "16 bits, synthetic": {
        "precision": "fp16",
        "data": "synthetic",
        "poplar": {**HURRIED["poplar"], "output_mode": ""},
    },
    "no inputs": {"workload": "hmc", **HURRIED},
}
# Injected errors: the mode, the way of contract_worker.WAYS, and the message of the check that detects it.
WRONG = {
    "replica": ("inference", "replicas", "batch 1 of 2 of a call is off"),
    "iteration": ("inference", "steps", "of 3 of a call is off"),
    "sum": ("training", "replicas", "the update of one training step is off"),
    "accumulation": ("training", "accumulated", "the update of one training step is off"),
    "step": ("training", "plain", "the update of one training step is off"),
}


@dataclass(frozen=True)
class Sdk:
    """One backend.

    needs       packages with which its fake computes
    stock       the backend of the same framework on a CPU
    prefix      of its SDK's names, omitted below
    order       the calls of a program in each mode, in the order of each first call
    acquire, release   the calls that attach to a device, and that release it
    setter      the prefixes of calls that set an option of the SDK
    refuses     the programs that it does not support, and the text of its message
    wrong       the injected errors that its fake has
    faults      the SDK's exceptions by name: class, text and attributes
    fails_at    the calls that compile, and that run
    steps       the calls of a whole run in which a fault is tried
    none_free   the error if no device is free: call, exception, text; None: there is no exception
    predicts    the precisions in which a training program computes logits
    """

    name: str
    needs: Sequence[str]
    stock: str
    prefix: str
    order: Mapping[str, Sequence[str]]
    acquire: str
    release: str
    setter: str
    refuses: Mapping[str, str]
    wrong: Sequence[str]
    faults: Mapping[str, Tuple[str, str, Mapping[str, str]]]
    fails_at: Mapping[str, str]
    steps: Sequence[str]
    none_free: Optional[Tuple[str, str, str]]
    predicts: Sequence[str]

    def short(self, name: str) -> str:
        return name[len(self.prefix) :] if name.startswith(self.prefix) else name

    def settings(self, calls: Sequence[Tuple[str, Mapping[str, Any]]]) -> Dict[str, Any]:
        """The last value of each option of the SDK."""
        found: Dict[str, Any] = {}
        for name, arguments in calls:
            if name == f"{self.setter}_Popart.set":
                found[f"_Popart.{arguments['key']}"] = arguments["value"]
            elif name.startswith(self.setter) and arguments:
                values = list(arguments.values())
                found[name[len(self.setter) :]] = values[0] if len(values) == 1 else arguments
        return found


SESSION = "popart.TrainingSession"
POPART = Sdk(
    name="popart",
    needs=("onnx", "onnxruntime", "torch"),
    stock="torch",
    prefix="popart.",
    order={
        "inference": (
            *("DeviceManager", "DeviceManager.tryAcquireAvailableDevice", "DeviceInfo.__enter__", "InferenceSession"),
            *("InferenceSession.prepareDevice", "InferenceSession.initAnchorArrays", "InferenceSession.run"),
            "DeviceInfo.__exit__",
        ),
        "training": (
            *("DeviceManager", "DeviceManager.tryAcquireAvailableDevice", "DeviceInfo.__enter__", "TrainingSession"),
            *("TrainingSession.prepareDevice", "TrainingSession.weightsFromHost", "TrainingSession.initAnchorArrays"),
            *("TrainingSession.writeWeights", "TrainingSession.updateOptimizerFromHost", "TrainingSession.run"),
            "DeviceInfo.__exit__",
        ),
    },
    acquire="DeviceManager.tryAcquire",
    release="DeviceInfo.__exit__",
    setter="SessionOptions.",
    refuses={
        "--pipeline-schedule grouped": "--pipeline-schedule grouped: PopART has its own schedule",
        "--pipeline-schedule interleaved": "--pipeline-schedule interleaved: PopART has its own schedule",
        "--recompute manual in an interleaved pipeline": "--pipeline-schedule interleaved: PopART has its own schedule",
        "--num-io-tiles": "--num-io-tiles: PopART supports them for inputs of its builder",
        "--num-io-tiles in a pipeline": "--num-io-tiles: PopART supports them for inputs of its builder",
        "--max-cross-replica-buffer-size": "--max-cross-replica-buffer-size: PopART has no such setting",
        "--no-all-reduce": "--no-all-reduce: PopART always averages the gradients of replicas",
        "--optimiser lars": "--optimiser lars: PopART does not have it",
        "--pipeline-splits of a layer": "--pipeline-splits: dense has no blocks to be cut between",
        "a loop in training": "lstm in a loop: PopART has no gradient of ONNX's Scan",
    },
    wrong=("replica", "iteration", "sum", "accumulation", "step"),
    faults={
        "memory": ("popart.OutOfMemoryException", "does not fit\nmore", {}),
        "exchange": ("popart.popart_exception", "Tile 0 receives more data than it has total memory in exchange", {}),
        "recoverable": (
            *("popart.poplar_recoverable_runtime_error", "link is down"),
            {"recoveryAction": "PARTITION_RESET"},
        ),
        "unrecoverable": ("popart.poplar_unrecoverable_runtime_error", "parity", {}),
        "timeout": ("popart.poplar_exception", "hostSyncTimeout of 300 s elapsed", {}),
        "option": ("popart.poplar_exception", "invalid_option: 'availableMemoryProportion' 7", {}),
        "other option": ("popart.poplibs_exception", "Unrecognised option 'x'", {}),
        "unsupported": ("popart.popart_exception", "No OpDefinition for ai.onnx.Foo:11", {}),
        "unknown": ("RuntimeError", "something else", {}),
    },
    fails_at={"early": f"{SESSION}.prepareDevice", "late": f"{SESSION}.run"},
    steps=(
        SESSION,
        *(f"{SESSION}.{name}" for name in ("prepareDevice", "weightsFromHost", "initAnchorArrays", "writeWeights")),
        *(f"{SESSION}.{name}" for name in ("updateOptimizerFromHost", "run", "weightsToHost", "readWeights")),
    ),
    none_free=None,
    predicts=(),
)

EXECUTOR = "poptorch.PoplarExecutor"
POPTORCH = Sdk(
    name="poptorch",
    needs=("torch",),
    stock="torch",
    prefix="poptorch.",
    order={
        "inference": (
            *("Options", "Options.deviceIterations", "inferenceModel", "PoplarExecutor.compile"),
            *("PoplarExecutor.__call__", "PoplarExecutor.destroy"),
        ),
        "training": (
            *("Options", "Options.Training.gradientAccumulation", "optim.SGD", "trainingModel"),
            *("PoplarExecutor.compile", "identity_loss", "PoplarExecutor.copyWeightsToDevice"),
            *("PoplarExecutor.setOptimizer", "PoplarExecutor.__call__", "PoplarExecutor.destroy"),
        ),
    },
    acquire="PoplarExecutor.compile",
    release="PoplarExecutor.destroy",
    setter="Options.",
    refuses={
        "--pipeline-schedule interleaved": "--pipeline-schedule interleaved: PopTorch has grouped and sequential",
        "--recompute manual in an interleaved pipeline": "--pipeline-schedule interleaved: PopTorch has grouped",
        "--num-io-tiles in a pipeline": "--num-io-tiles in a pipeline: PopTorch supports it with --pipeline-schedule",
        "--max-cross-replica-buffer-size": "--max-cross-replica-buffer-size: PopTorch has no such setting",
        "--no-all-reduce": "--no-all-reduce: PopTorch always averages the gradients of replicas",
        "--optimiser lars": "--optimiser lars: PopTorch does not have it",
        "--pipeline-splits of a layer": "--pipeline-splits: dense has no blocks to be cut between",
    },
    wrong=("replica", "iteration", "sum", "accumulation"),
    faults={
        "memory": ("poptorch.Error", "graph_memory_allocation_error: tile 3", {}),
        "exchange": ("poptorch.Error", "Tile 0 receives more data than it has total memory in exchange", {}),
        "linked": ("poptorch.Error", "linker: _poplar_start must be 0", {}),
        "recoverable": ("poptorch.RecoverableError", "link is down", {"recovery_action": "PARTITION_RESET"}),
        "unrecoverable": ("poptorch.UnrecoverableError", "parity", {}),
        "timeout": ("poptorch.Error", "Host sync timeout", {}),
        "option": ("poptorch.Error", "invalid_option: 'availableMemoryProportion' 7", {}),
        "frozen": ("AttributeError", "Can't modify frozen Options", {}),
        "unknown": ("poptorch.Error", "something else", {}),
    },
    fails_at={"early": f"{EXECUTOR}.compile", "late": "poptorch_core.execute"},
    steps=(
        *("poptorch.trainingModel", "poptorch_core.loadEngineAndConnectStreams"),
        *(f"{EXECUTOR}.{name}" for name in ("copyWeightsToHost", "copyWeightsToDevice", "setOptimizer", "destroy")),
    ),
    none_free=(f"{EXECUTOR}.compile", "poptorch.Error", "Failed to acquire 1 IPU(s)"),
    predicts=("fp32", "fp16", "fp16m"),
)

RUN = f"{IPU}.ipu_strategy.IPUStrategyV1.run"
CONFIGURE = f"{IPU}.config.IPUConfig.configure_ipu_system"
INTERNAL = "tensorflow.errors.InternalError"
TENSORFLOW = Sdk(
    name="tensorflow_ipu",
    needs=("tensorflow",),
    stock="tensorflow",
    prefix=f"{IPU}.",
    order=dict.fromkeys(
        ("inference", "training"),
        (
            *("config.IPUConfig", "config.IPUConfig.configure_ipu_system", "ipu_strategy.IPUStrategyV1"),
            *("ipu_infeed_queue.IPUInfeedQueue", "ipu_outfeed_queue.IPUOutfeedQueue"),
            *("ipu_strategy.IPUStrategyV1.run", "loops.repeat", "ipu_outfeed_queue.IPUOutfeedQueue.enqueue"),
            *("ipu_outfeed_queue.IPUOutfeedQueue.dequeue", "config.reset_ipu_configuration"),
        ),
    ),
    acquire="config.IPUConfig.configure_ipu_system",
    release="config.reset_ipu_configuration",
    setter="config.IPUConfig.",
    refuses={
        "--recompute manual": "--recompute manual without --pipeline-splits: TensorFlow has",
        "--recompute manual in an interleaved pipeline": "--recompute manual in an interleaved pipeline: TensorFlow",
        "--pipeline-splits of a layer": "--pipeline-splits: dense has no blocks to be cut between",
        "--available-memory-proportion, several without a pipeline": "several values of --available-memory-proportion",
        "--replicated-tensor-sharding without --variable-offloading": "--replicated-tensor-sharding without",
    },
    wrong=("replica", "iteration", "sum", "accumulation"),
    faults={
        "memory": (INTERNAL, "[Poplar][Compile engine] graph_memory_allocation_error: out of memory on tile 7\nx", {}),
        "exhausted": ("tensorflow.errors.ResourceExhaustedError", "too much", {}),
        "recoverable": (
            INTERNAL,
            "[Poplar][Load engine] recoverable_runtime_error: [Recovery action: PARTITION_RESET] link is down",
            {},
        ),
        "unrecoverable": (INTERNAL, "[Poplar][Load engine] unrecoverable_runtime_error: parity", {}),
        "timeout": (INTERNAL, "[Poplar][Execute engine] host sync timeout", {}),
        "option": (INTERNAL, "invalid_option: 'availableMemoryProportion' 7", {}),
        "batches": (
            "tensorflow.errors.FailedPreconditionError",
            "The number of iterations of the pipeline must be a multiple of 4",
            {},
        ),
        "unknown": ("tensorflow.errors.UnknownError", "something else", {}),
        "python's": ("KeyError", "something else", {}),
    },
    fails_at={"early": RUN, "late": RUN},
    steps=(CONFIGURE, f"{IPU}.ipu_infeed_queue.IPUInfeedQueue", RUN, f"{IPU}.loops.repeat"),
    none_free=(
        *(CONFIGURE, INTERNAL),
        "Could not find an available device for TensorFlow virtual device /device:IPU:0.",
    ),
    predicts=("fp32",),
)
SDKS: Dict[str, Sdk] = {sdk.name: sdk for sdk in (POPTORCH, POPART, TENSORFLOW)}
