"""Hand-written layers in each framework, next to the suite's programs of the same layers."""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, Tuple

Run = Callable[[], Any]
LAYERS = ("dense", "conv", "grouped_conv", "rnn", "lstm", "gru", "lstm_multi")
SMALLER = {"conv": {"input_width": 240, "input_height": 135}}


def pairs(backend: str, batch: int) -> Iterator[Tuple[str, Run, Run]]:
    """For each layer and mode: its name, a step of the suite's program, and a step of the hand-written layer.

    The steps are valid until the next pair.
    """
    import os

    from bench import backends, workloads
    from bench.cases import dimension
    from bench.cases.case import Case, Settings
    from bench.graph import draws

    settings = Settings(threads=1)
    os.environ.update(backends.load(backend).environment(settings, "cpu"))
    for name in LAYERS:
        module = workloads.load(name)
        dims = {**next(iter(workloads.named_sizes(module).values())), **SMALLER.get(name, {})}
        dims.pop("batch_size")
        for mode in ("inference", "training"):
            if mode not in backends.load(backend).modes:
                continue
            size = dimension.name(module.dimensions, dims)
            case = Case(name, size, dims, mode, batch, "fp32", 1, backend, "cpu")
            graph = workloads.of_case(case)
            weights, inputs = draws.weights(graph, "float32"), draws.inputs(graph, "float32")
            program = backends.load(backend).compile(graph, weights, [inputs], case, settings)
            if program.set_learning_rate is not None:
                program.set_learning_rate(1e-9)
            hand = HANDS[backend](name, graph, weights, inputs, mode)
            if hand is not None:
                yield f"{name} {size} {mode}", program.run, hand


def torch_hand(name: str, graph: Any, weights: Any, inputs: Any, mode: str) -> Any:
    import torch
    from torch import nn

    shapes = [node.shape for node in graph.inputs.values()]
    x = torch.rand(shapes[0])
    if len(shapes[0]) == 3:
        x = torch.rand(shapes[0][1], shapes[0][0], shapes[0][2])
    features, out = shapes[0][-1], graph.output.shape[-1]
    recurrent = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
    if name in recurrent:
        model: Any = recurrent[name](features, out)
    elif name == "dense":
        model = nn.Linear(features, out)
    elif name == "lstm_multi":

        class Stack(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.lstm, self.head = nn.LSTM(16, 256, num_layers=2), nn.Linear(256, 1)

            def forward(self, x: Any) -> Any:
                return self.head(self.lstm(x)[0][-1])

        model = Stack()
    else:
        convs = [node for node in graph.nodes if node.op == "conv"]
        layers = [
            nn.Conv2d(n.inputs[0].shape[1], n.shape[1], n.weights[0].shape[2], n.attrs["stride"],
                      n.attrs["pads"][0][0], groups=n.attrs["groups"], bias=len(n.weights) > 1)
            for n in convs
        ]  # fmt: skip
        model = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    if mode == "inference":
        model.eval()

        def run() -> None:
            with torch.inference_mode():
                model(x)

        return run
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-9)
    labels = [torch.rand(shape) for shape in shapes[1:]]

    def step() -> None:
        with torch.enable_grad():
            optimiser.zero_grad()
            y = model(x)
            y = y[0] if isinstance(y, tuple) else y
            if name in recurrent:
                flat = labels[0].transpose(0, 1).reshape(-1, out)
                loss = nn.functional.cross_entropy(y.reshape(-1, out), flat)
            elif name == "lstm_multi":
                loss = nn.functional.mse_loss(y, labels[0])
            elif name == "conv":
                loss = nn.functional.mse_loss(y.flatten(1).softmax(1), labels[0].flatten(1), reduction="sum")
            else:
                loss = y.mean()
            loss.backward()
            optimiser.step()

    return step


def tensorflow_hand(name: str, graph: Any, weights: Any, inputs: Any, mode: str) -> Any:
    import tensorflow as tf

    if mode != "inference":
        return None
    shape = next(iter(graph.inputs.values())).shape
    out = graph.output.shape[-1]
    layers = tf.keras.layers
    recurrent = {"rnn": layers.SimpleRNN, "lstm": layers.LSTM, "gru": layers.GRU}
    if name in recurrent:
        model: Any = recurrent[name](out, return_sequences=True)
    elif name == "dense":
        model = layers.Dense(out)
    elif name == "lstm_multi":
        model = tf.keras.Sequential([layers.LSTM(256, return_sequences=True), layers.LSTM(256), layers.Dense(1)])
    elif name == "grouped_conv":
        model = tf.keras.Sequential([layers.DepthwiseConv2D(3, padding="same", use_bias=False) for _ in range(10)])
        shape = (shape[0], shape[2], shape[3], shape[1])
    else:
        model = tf.keras.Sequential([layers.ZeroPadding2D(3), layers.Conv2D(64, 4, 2)])
        shape = (shape[0], shape[2], shape[3], shape[1])
    x = tf.random.uniform(shape)
    model(x)
    function = tf.function(model, jit_compile=name in ("rnn", "lstm", "gru", "lstm_multi"))
    return lambda: function(x)


def onnx_hand(name: str, graph: Any, weights: Any, inputs: Any, mode: str) -> Any:
    import onnxruntime as ort

    from bench.backends._onnx import model as onnx_model

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(onnx_model.model(graph, weights).SerializeToString(), options)
    native = {key: onnx_model.native(value, "float32") for key, value in inputs.items()}
    return lambda: session.run(None, native)


def openvino_hand(name: str, graph: Any, weights: Any, inputs: Any, mode: str) -> Any:
    import openvino as ov

    from bench.backends._onnx import model as onnx_model

    core = ov.Core()
    model = core.read_model(onnx_model.model(graph, weights).SerializeToString())
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(model, "CPU", options)
    native = {key: onnx_model.native(value, "float32") for key, value in inputs.items()}
    request = compiled.create_infer_request()
    return lambda: request.infer(native, share_inputs=True)


HANDS: Dict[str, Callable[..., Any]] = {
    "torch": torch_hand,
    "tensorflow": tensorflow_hand,
    "onnxruntime": onnx_hand,
    "openvino": openvino_hand,
}
