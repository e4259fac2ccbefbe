"""What PopTorch's dispatcher does, for a stand-in of its core: it records the operations of a module, to replay them.

A tensor of the device `ipu` is below autograd, as the true one is, so the operations are those that PopTorch sees.
While tracing, the CPU computes their shapes and types. Like the true dispatcher this one refuses a tensor of the CPU in
an operation, a copy to the host before the end, and an operation without a handler.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

aten = torch.ops.aten
# Operations that torch itself takes apart for a device without a kernel of its own: a part that PopTorch must know.
# Those of EMPTY are memory without values.
PARTS = {"_to_copy": "copy_", "randn_like": "normal_", "rand_like": "uniform_", "unsafe_split": "slice"}
EMPTY = frozenset({"empty", "empty_like", "new_empty", "empty_strided", "alias"})
# The operations of PopTorch that are the graph's, not a computation's.
MARKS = ("begin_ipu_block", "end_ipu_block", "optimizer_group", "push_name_scope", "pop_name_scope", "start_for_loop")


class Facts(NamedTuple):
    """What the C++ sources of a checkout say; nothing if it has none.

    schemas      of PopTorch's own operations
    whole        operations that are intercepted before torch takes them apart
    handlers     names of ATen's operations that PopTorch lowers to PopART
    options      the type of each option that its compiler knows
    """

    schemas: Any = ()
    whole: Any = ()
    handlers: Any = frozenset()
    options: Any = {}


def facts(root):
    """The Facts of a checkout."""
    source = root / "poptorch" / "source"
    if not source.is_dir():
        return Facts()
    registered = (source / "dispatch_tracer" / "RegisterAtenOverloads.cpp").read_text()
    schemas = ["".join(re.findall(r'"([^"]*)"', text)) for text in re.findall(r"m\.def\(([^;]*);", registered)]
    optional = (source / "dispatch_tracer" / "RegisterOptionalAtenOps.cpp.inc").read_text()
    aten_part = optional[: optional.index("TORCH_LIBRARY_IMPL(poptorch")]
    handlers = "".join(file.read_text() for file in (source / "popart_canonicalization").glob("*.cpp"))
    parser = (root / "popart_compiler" / "source" / "SessionOptions.cpp").read_text()
    options = {name: kind for kind, name in re.findall(r'registerSetter\(\s*(\w+)_options,\s*"([\w.]+)"', parser)}
    kinds = {"ENUM": "uint64", "BOOL": "bool", "UINT64": "uint64", "DOUBLE": "double", "STRING": "string"}
    for kind, name in re.findall(r"ADD_POPART_(\w+)_OPTION\(\s*([\w.]+)", parser):
        options[name] = kinds[kind]
    return Facts(
        schemas=[schema for schema in schemas if "(" in schema],
        whole=re.findall(r'm\.impl\("([\w.]+)"', aten_part),
        handlers=frozenset(re.findall(r"registerHandler\(\s*c10::aten::(\w+)", handlers)),
        options=options,
    )


class Ref(NamedTuple):
    """A value of a trace."""

    index: int


class Operation(NamedTuple):
    """An operation of a trace, and the indexes of its results."""

    function: Any
    args: Any
    kwargs: Any
    results: Any


class IpuTensor(torch.Tensor):
    """A tensor of the device `ipu`. Torch is built without it, so its core allocates one of `meta`.

    value   what the CPU computed while tracing
    index   the place in the trace
    """

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: torch.device("ipu:0"))

    @staticmethod
    def __new__(cls, value, index):
        shape = aten.empty_strided.default(value.size(), value.stride(), dtype=value.dtype, device="meta")
        made = torch.Tensor._make_subclass(cls, shape, device_for_backend_keys=torch.device("ipu:0"))
        made.value, made.index = value.detach(), index
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise error("an operation on a tensor of the IPU, and no graph is being traced")


def error(text):
    import poptorch

    return poptorch.createPoptorchError(text)


def is_ipu(device):
    return device is not None and torch.device(device).type == "ipu"


class Trace(TorchDispatchMode):
    """The operations of one module, in order.

    inputs, outputs   indexes of values; `names` those of the parameters and buffers
    ipus              those that blocks begin on
    groups            the names of the parameters of each group of the optimiser
    loss              the index of the last loss
    """

    def __init__(self, inputs):
        super().__init__()
        self.given = {id(tensor): place for place, tensor in enumerate(inputs)}
        self.kept = inputs
        self.inputs, self.outputs, self.names, self.constants = {}, [], {}, {}
        self.program, self.ipus, self.groups, self.loss, self.count = [], [], {}, None, 0
        self.moving, self.checkpoints = "", 0
        # The programs around the loops that are being traced.
        self.around = []

    def new(self, value):
        self.count += 1
        return IpuTensor(value, self.count)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        ours = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, IpuTensor)]
        moved_in = is_ipu(kwargs.get("device"))
        if func.namespace == "poptorch" and self._marked(func, args):
            return None
        if not ours and not moved_in:
            return func(*args, **kwargs)
        if func is aten._to_copy.default and not ours:
            return self._in(args[0], kwargs)
        if func is aten._to_copy.default and "device" in kwargs and not moved_in:
            return self._out(args[0])
        return self._recorded(func, args, kwargs, {id(tensor.value): tensor for tensor in ours})

    def _in(self, tensor, kwargs):
        if not tensor.is_contiguous():
            raise error("INTERNAL ASSERT: at::detail::defaultStrides(size) != stride")
        made = self.new(tensor.detach().clone().to(kwargs.get("dtype") or tensor.dtype))
        if self.moving == "parameters":
            return made
        if id(tensor) in self.given:
            self.inputs[made.index] = self.given[id(tensor)]
        else:
            self.constants[made.index] = made.value.clone()
        return made

    def _out(self, tensor):
        if self.moving != "outputs":
            raise error('Illegal move to CPU (via `.to("cpu")`) when using the dispatcher.')
        self.outputs.append(tensor.index)
        return tensor.value.clone()

    def _marked(self, func, args):
        name = func._schema.name.partition("::")[2]
        if name == "start_for_loop":
            self.around.append(self.program)
            self.program = []
        if name == "begin_ipu_block":
            self.ipus.append(args[2])
        if name == "optimizer_group":
            self.groups[args[0]] = [self.names[tensor.index] for tensor in args[1]]
        return name in MARKS

    def _looped(self, func, outputs, inputs, count):
        """The results of a loop of `count` rounds, whose body was traced since its start."""
        if [(t.shape, t.dtype) for t in outputs] != [(t.shape, t.dtype) for t in inputs]:
            raise error("the results of a loop's body are not like its inputs")
        body, self.program = self.program, self.around.pop()
        results = [self.new(tensor.value) for tensor in outputs]
        places = [[tensor.index for tensor in tensors] for tensors in (inputs, outputs, results)]
        self.program.append(Operation(func, (body, *places[:2], count), {}, places[2]))
        return results

    def _recorded(self, func, args, kwargs, known):
        if func._schema.name == "poptorch::end_for_loop":
            return self._looped(func, *args)
        if func in (aten._local_scalar_dense.default, aten.item.default):
            raise error("aten::item is only supported in eager mode, but was intercepted in a static graph.")
        for tensor in tree_flatten((args, kwargs))[0]:
            if isinstance(tensor, torch.Tensor) and not isinstance(tensor, IpuTensor) and tensor.dim():
                raise error(f"Expected an IPU tensor but got tensor(device=cpu, shape={tuple(tensor.shape)})")
        values = tree_map(lambda x: x.value if isinstance(x, IpuTensor) else x, (args, kwargs))
        made = compute(func, *values)
        results = tree_map(
            lambda x: known.get(id(x)) if id(x) in known else self.new(x) if isinstance(x, torch.Tensor) else x, made
        )
        indexed = tree_map(lambda x: Ref(x.index) if isinstance(x, IpuTensor) else x, (args, kwargs))
        places = [x.index for x in tree_flatten(results)[0] if isinstance(x, IpuTensor)]
        self.program.append(Operation(func, *indexed, places))
        self.checkpoints += func._schema.name == "poptorch::recomputation_checkpoint"
        if func._schema.name == "poptorch::identity_loss":
            self.loss = places[0]
        return results

    def name_parameters(self, names, tensors):
        self.names.update({tensor.index: name for name, tensor in zip(names, tensors)})

    def unsupported(self, handlers):
        """The names of the operations that PopTorch has no handler for."""
        names = {op.function._schema.name.partition("::")[2] for op in every(self.program)}
        names = {PARTS.get(name, name) for name in names} - EMPTY
        return sorted(name for name in names if not {name, name.rstrip("_")} & handlers)

    def replayed(self, inputs, weights, strided):
        """The values of the graph, by index, for one batch. Buffers of `weights` change in place."""
        values = {index: inputs[place].clone() for index, place in self.inputs.items()}
        values.update({index: tensor.clone() for index, tensor in self.constants.items()})
        values.update({index: weights[name] for index, name in self.names.items()})
        with strided_groups(strided):
            replay(self.program, values)
        return values


def replay(program, values):
    """Add the results of the operations of a program to `values`, by index."""
    for function, args, kwargs, results in program:
        if function._schema.name == "poptorch::end_for_loop":
            body, inputs, outputs, count = args
            for _ in range(count):
                replay(body, values)
                values.update(zip(inputs, [values[index] for index in outputs]))
            values.update(zip(results, [values[index] for index in inputs]))
            continue
        args, kwargs = tree_map(lambda x: values[x.index] if isinstance(x, Ref) else x, (args, kwargs), is_leaf=is_ref)
        made = [x for x in tree_flatten(compute(function, args, kwargs))[0] if isinstance(x, torch.Tensor)]
        values.update(zip(results, made))


def every(program):
    """The operations of torch in a program, and in the loops in it."""
    for operation in program:
        if operation.function._schema.name == "poptorch::end_for_loop":
            yield from every(operation.args[0])
        elif operation.function.namespace == "aten":
            yield operation


def is_ref(x):
    return isinstance(x, Ref)


LOSSES = (torch.sum, torch.mean, torch.clone)
STRIDED = [False]


@contextlib.contextmanager
def strided_groups(strided):
    STRIDED.append(strided)
    try:
        yield
    finally:
        STRIDED.pop()


def compute(func, args, kwargs):
    """The result of an operation on tensors of the CPU."""
    kwargs = {key: "cpu" if key == "device" and is_ipu(value) else value for key, value in kwargs.items()}
    name = func._schema.name
    if name == "poptorch::identity_loss":
        return LOSSES[args[1]](args[0])
    if name == "poptorch::dynamic_slice":
        tensor, dim, start, size, step = args
        return tensor.narrow(dim, int(start), size)[(slice(None),) * dim + (slice(None, None, step),)]
    if name == "poptorch::dynamic_update":
        tensor, source, dim, start, size = args
        return aten.slice_scatter.default(tensor, source, dim, int(start), int(start) + size)
    if func.namespace == "poptorch":
        return args[0]
    if name == "aten::native_batch_norm" and args[3] is not None and args[3].dtype != args[0].dtype:
        # The handler casts weight and bias to the type of the input. The CPU takes no running statistics of another.
        real = [x.float() if isinstance(x, torch.Tensor) and place < 3 else x for place, x in enumerate(args)]
        made = func(*real, **kwargs)
        return (made[0].to(args[0].dtype), *made[1:])
    if name == "aten::native_group_norm" and STRIDED[-1]:
        return _strided_group_norm(*args)
    return func(*args, **kwargs)


def _strided_group_norm(x, weight, bias, rows, channels, size, groups, eps):
    """PopART's operation with the option groupNormStridedChannelGrouping: channel c is in group c % groups."""
    order = torch.arange(channels).reshape(-1, groups).T.reshape(-1)
    normed = torch.nn.functional.group_norm(x[:, order], groups, None, None, eps)[:, torch.argsort(order)]
    shape = (-1, *[1] * (x.dim() - 2))
    return normed * weight.reshape(shape) + bias.reshape(shape), torch.zeros(rows, groups), torch.ones(rows, groups)
