"""Profiles small networks with one backend, and prints the rows and the nodes with FLOP as JSON: by network."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench import backends
from bench.cases.case import Case, Settings
from bench.graph import Graph, draws, naming
from bench.profiling import timed
from bench.results import profile

NORM = {"eps": 1e-5, "momentum": 0.1}


def dense(training=False):
    """A product of 2 MFLOP next to one of 400 FLOP."""
    net = Graph(4, training=training)
    large = net.dense(net.relu(net.dense(net.input(50), 512)), 512)
    net.output = net.dense(large, 4)
    if training:
        net.loss = net.squared_error(net.output, net.labels(4, values="normal"))
    return net


def lstm(training=False):
    net = Graph(2, training=training)
    net.output = net.dense(net.last(net.lstm(net.lstm(net.input(6, 32), 64), 16)), 4)
    if training:
        net.loss = net.squared_error(net.output, net.labels(4, values="normal"))
    return net


def conv(training=False):
    """Two branches. A hostile name, and one that another layer has."""
    net = Graph(2, training=training)
    x = net.image(3, 24)
    with net.in_block("stem"):
        x = net.relu(net.batch_norm(net.conv(x, 16, 3, padding=1, bias=False, name="/n5_x:Y [bold]"), **NORM))
        x = net.max_pool(x, 3, stride=2, padding=1)
    with net.in_block("body"):
        y = net.relu(net.batch_norm(net.conv(x, 16, 3, padding=1, bias=False, name="body.conv.a"), **NORM))
        y = net.batch_norm(net.conv(y, 64, 3, padding=1, bias=False, name="body.conv_a"), **NORM)
        x = net.relu(net.add(y, net.batch_norm(net.conv(x, 64, 1, bias=False, name="body.down"), **NORM)))
    with net.in_block("head"):
        net.output = net.dense(net.global_mean(x), 5)
    if training:
        net.loss = net.cross_entropy(net.output, net.labels(values="classes", count=5))
    return net


def told(name, build, mode):
    graph = build(mode == "training")
    # Without a compiler: half a minute. Its calls have tests of their own.
    settings = Settings(tuning="default" if name == "torch" and build is conv else "best")
    case = Case("resnet18", build.__name__, {}, mode, graph.batch_size, "fp32", 1, name, "cpu")
    inputs = [draws.inputs(graph, "float32", 0)]
    program = backends.load(name).compile(graph, draws.weights(graph, "float32"), inputs, case, settings)
    # The fastest, and the profiled steps that are nearest to it: other processes run as well.
    step_s = min(timed(program.run, perf_counter) for _ in range(10))
    before = program.outputs()["output"].tolist()
    found = program.profile(15)
    program.run()
    rows = profile.rows(graph, found.nearest(step_s), step_s, 3 if mode == "training" else 1)
    names = naming.names(graph.nodes)
    return {
        "rows": rows,
        "flops": {names[index]: node.flops for index, node in enumerate(graph.nodes) if node.flops},
        "runs": len(found.runs),
        "events": len(json.loads(found.trace))
        if isinstance(json.loads(found.trace), list)
        else len(json.loads(found.trace)["traceEvents"]),
        "same": mode == "training" or before == program.outputs()["output"].tolist(),
    }


if __name__ == "__main__":
    name = sys.argv[1]
    modes = ["inference", *(["training"] if "training" in backends.load(name).modes else [])]
    answers = {f"{b.__name__} {mode}": told(name, b, mode) for b in (dense, lstm, conv) for mode in modes}
    print(json.dumps(answers))
