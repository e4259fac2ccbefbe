"""The cases of TensorFlow for IPU that run on the fakes, and what came of them: `tensorflow_ipu_runs.py` runs all."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import workloads
from bench.cases.case import MODES, Case, Settings
from bench.cases.poplar import Poplar
from bench.cases.recipe import Recipe

ENGINE = "tensorflow_ipu"
NETWORKS = ("resnet8", "mobilenet_v3_small", "efficientnet_b0")
CUT = "layer2.0"
IPU = "tensorflow.python.ipu"
RUN = f"{IPU}.ipu_strategy.IPUStrategyV1.run"
CONFIGURE = f"{IPU}.config.IPUConfig.configure_ipu_system"
NONE_FREE = "Could not find an available device for TensorFlow virtual device /device:IPU:0."


def fault(name, message, kind="InternalError", **more):
    return {
        "FAKE_IPU_FAULTS": json.dumps({name: {"exception": f"tensorflow.errors.{kind}", "message": message, **more}})
    }


def case_of(layer, mode, precision="fp32", replicas=1, batch=3, engine=ENGINE, **changed):
    module = workloads.load(layer)
    first = next(iter(workloads.named_sizes(module).values()))
    size = {**first, **module.TINY, **changed}
    size = workloads.settled(module, {name: size[name] for name in module.DIMENSIONS})
    return Case(layer, "tiny", size, mode, batch, precision, replicas, engine, "ipu" if engine == ENGINE else "cpu")


def layers():
    """(layer, mode, changed dimensions) of every layer, in every mode and every way to run it."""
    for layer in workloads.names("layers"):
        module = workloads.load(layer)
        ways = [{}, *({name: c} for name, dimension in module.DIMENSIONS.items() for c in dimension.choices[1:])]
        for mode in MODES:
            if not workloads.unsupported(module, mode, "fp32"):
                yield from ((layer, mode, way) for way in ways)


def checks():
    """The cases that are checked against the reference: name to (case, settings, environment)."""
    found = {}
    for layer, mode, way in layers():
        found["-".join([layer, mode, *way, *way.values()])] = case_of(layer, mode, **way), {}, {}
    for layer in ("dense", "conv", "lstm", "gru", "rnn", "lstm_multi"):
        for mode in ("inference", "training"):
            for precision in ("fp16", "fp16m"):
                found[f"{layer}-{mode}-{precision}"] = case_of(layer, mode, precision), {}, {}
    for network in NETWORKS:
        for mode in MODES:
            found[f"{network}-{mode}"] = case_of(network, mode), {}, {}
    for name, changed in (("group", {"norm_type": "group"}), ("uint8", {"eight_bit_io": "on"})):
        found[f"resnet8-training-{name}"] = case_of("resnet8", "training", **changed), {}, {}
    found["resnet8-training-fp16"] = case_of("resnet8", "training", "fp16"), {}, {}
    two, three, four = ({"recipe": Recipe(gradient_accumulation=count)} for count in (2, 3, 4))
    manual = Recipe(gradient_accumulation=4, **MANUAL)
    for replicas in (1, 2):
        train, infer = (case_of("resnet8", mode, replicas=replicas) for mode in ("training", "inference"))
        found[f"x{replicas} plain"] = train, {}, {}
        found[f"x{replicas} accumulated"] = train, three if replicas == 1 else two, {}
        found[f"x{replicas} pipeline"] = train, {**four, "pipeline_splits": CUT}, {}
        found[f"x{replicas} pipelined inference"] = infer, {"batches_per_step": 4, "pipeline_splits": CUT}, {}
        found[f"x{replicas} several iterations"] = infer, {"batches_per_step": 3}, {}
    train = case_of("resnet8", "training")
    found["manual recomputation"] = train, {"recipe": manual, "pipeline_splits": CUT}, {}
    found["alone"] = case_of("dense", "training", replicas=2), {"all_reduce": False}, {}
    cut = {"pipeline_splits": CUT, "poplar": Poplar(pipeline_schedule="interleaved", output_mode="all")}
    found["alone in a pipeline"] = train, {**two, **cut, "all_reduce": False}, {}
    found["interleaved schedule"] = train, {**two, **cut}, {}
    sequential = Poplar(pipeline_schedule="sequential", output_mode="all")
    found["sequential schedule"] = train, {"pipeline_splits": CUT, "poplar": sequential}, {}
    traced = {"FAKE_TF_GRAPH": "1"}
    for layer in ("dense", "lstm", "resnet8"):
        found[f"traced {layer}"] = case_of(layer, "training"), {}, traced
    found["traced pipeline"] = train, {**two, **cut}, traced
    found["traced pipelined inference"] = (
        case_of("resnet8", "inference"),
        {**{"batches_per_step": 2, "pipeline_splits": CUT}},
        traced,
    )
    for what, told in (("replica", {}), ("iteration", two), ("sum", {}), ("accumulation", {**two, **cut})):
        found[f"wrong {what}"] = case_of("resnet8", "training", replicas=2), told, {"FAKE_TF_WRONG": what}
    found["wrong accumulation in a loop"] = case_of("dense", "training"), three, {"FAKE_TF_WRONG": "accumulation"}
    return found


MANUAL = {"recompute": "manual", "recompute_layers": "layer1"}
OPTIONS = {
    "available_memory_proportion": {"poplar": Poplar(available_memory_proportion=(0.2,))},
    "partials_type_matmul": {"poplar": Poplar(partials_type_matmul="half")},
    "partials_type_conv": {"poplar": Poplar(partials_type_conv="half")},
    "half_partial": {"half_partial": True},
    "internal_exchange_target": {"poplar": Poplar(internal_exchange_target="cycles")},
    "engine_options": {"poplar": Poplar(engine_options={"opt.maxCompilationThreads": "2"})},
    "prefetch": {"poplar": Poplar(prefetch=False)},
    "min_latency": {"min_latency": True},
    "num_io_tiles": {"poplar": Poplar(num_io_tiles=32)},
    "stochastic_rounding on": {"poplar": Poplar(stochastic_rounding=True)},
    "stochastic_rounding off": {"poplar": Poplar(stochastic_rounding=False)},
    "stable_norm": {"poplar": Poplar(stable_norm=True)},
    "conv_dithering": {"poplar": Poplar(conv_dithering=True)},
    "max_cross_replica_buffer_size": {"poplar": Poplar(max_cross_replica_buffer_size=4096)},
    "device_id": {"poplar": Poplar(device_id=4)},
    "recompute": {"recipe": Recipe(recompute="auto")},
    "variable_offloading": {"poplar": Poplar(variable_offloading=True)},
    "replicated_tensor_sharding": {"poplar": Poplar(replicated_tensor_sharding=True)},
    "compile_only": {"poplar": Poplar(compile_only="ipu21")},
    "nothing": {},
}
PIPELINES = {
    "shares": {"available_memory_proportion": (0.1, 0.2, 0.3, 0.4), "partials_type_conv": "half"},
    "offloading": {"variable_offloading": False},
    "sharding": {"replicated_tensor_sharding": True},
    "manual": {},
    "final": {"output_mode": "final"},
    "sum": {"output_mode": "sum"},
    "nothing": {},
}
REFUSED = {
    "a layer in a pipeline": (case_of("dense", "training"), {"pipeline_splits": CUT}),
    "shares of a single IPU": (
        case_of("dense", "training"),
        {"poplar": Poplar(available_memory_proportion=(0.1, 0.2))},
    ),
    "manual without a pipeline": (case_of("resnet8", "training"), {"recipe": Recipe(recompute="manual")}),
    "manual and interleaved": (
        case_of("resnet8", "training"),
        {
            "recipe": Recipe(recompute="manual", gradient_accumulation=2),
            "pipeline_splits": CUT,
            "poplar": Poplar(pipeline_schedule="interleaved"),
        },
    ),
    "sharding without offloading": (
        case_of("dense", "training", replicas=2),
        {"poplar": Poplar(replicated_tensor_sharding=True, variable_offloading=False)},
    ),
}
FAILURES = {
    "none free": {"FAKE_IPU_BUSY": "0,1,2,3"},
    "no such device": fault(CONFIGURE, "No device matches the requested configuration", "InvalidArgumentError"),
    "free later": fault(CONFIGURE, NONE_FREE, times=1),
    "out of memory": fault(RUN, "[Poplar][Compile engine] graph_memory_allocation_error: out of memory on tile 7\nx"),
    "exhausted": fault(RUN, "too much", "ResourceExhaustedError"),
    "recoverable": fault(RUN, "[Poplar][Load engine] recoverable_runtime_error: [Recovery action: IPU_RESET] soft"),
    "unrecoverable": fault(RUN, "[Poplar][Load engine] unrecoverable_runtime_error: broken"),
    "pipeline": fault(
        RUN, "The number of iterations of the pipeline must be a multiple of 4", "FailedPreconditionError"
    ),
    "host sync": fault(RUN, "[Poplar][Execute engine] host sync timeout"),
    "something else": fault(RUN, "no idea", "UnknownError"),
    "python's": {"FAKE_IPU_FAULTS": json.dumps({RUN: {"exception": "KeyError", "message": "x"}})},
}


@contextlib.contextmanager
def environment(changed):
    before = dict(os.environ)
    os.environ.update(changed)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def settings_of(told):
    return Settings(**{"data": "generated", "poplar": Poplar(output_mode="all"), **told})


def pipelined(name, told):
    recipe = Recipe(gradient_accumulation=2, **(MANUAL if name == "manual" else {}))
    chosen = Poplar(**{"pipeline_schedule": "sequential", "output_mode": "all", **told})
    return case_of("resnet8", "training"), Settings("generated", recipe=recipe, pipeline_splits=CUT, poplar=chosen)


FAKES = Path(__file__).resolve().parents[1] / "fakes"
ENV = {
    **{"PYTHONPATH": f"{FAKES}{os.pathsep}{FAKES.parent.parent}", "POPLAR_SDK_ENABLED": "/opt/fake"},
    **{"PATH": f"{FAKES / 'bin'}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"},
    **{"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
}


@functools.lru_cache(maxsize=None)
def _asked():
    """What one process saw of every case, or what it said when it failed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answers.json"
        command = [sys.executable, str(Path(__file__).with_name("tensorflow_ipu_runs.py")), str(path)]
        done = subprocess.run(command, env={**os.environ, **ENV}, capture_output=True, text=True, timeout=600)
        return done.stderr[-4000:] if done.returncode else json.loads(path.read_text())


def answers():
    found = _asked()
    assert isinstance(found, dict), found
    return found


def calls(answer):
    assert answer["outcome"] == "passed", answer["text"]
    return answer["calls"]


def given(called, name):
    """The arguments of the calls of that name."""
    return [arguments for known, arguments in called if known == name]
