"""The optimisers of the fake popart: PopART's rules, on numpy arrays."""

from __future__ import annotations

from contract import state

DEFAULTS = {"defaultWeightDecay": (0.0, True), "defaultMomentum": (0.0, True), "lossScaling": (1.0, True)}


def made(kind):
    def init(self, values=None, pyd=None, **options):
        own = state(self)
        own.kind, own.options, own.specific = kind, options, {}
        own.values = {**DEFAULTS, **(values if pyd is None else pyd)}

    return init


def specific(self, name, values):
    state(self).specific[name] = dict(values)


def constants(optimiser):
    """What may not change when an optimiser is replaced."""
    own = state(optimiser)
    return own.kind, own.specific, {name: pair[0] if pair[1] else None for name, pair in own.values.items()}


def loss_scale(optimiser):
    return state(optimiser).values["lossScaling"][0]


def has_place(optimiser, options):
    """Whether there is state whose place is that of optimiser state: a combined buffer is among the accumulators."""
    own = state(optimiser)
    if own.kind == "SGD" and not own.values["defaultMomentum"][0]:
        return False
    accumulates = options.enableGradientAccumulation and options.accumulationFactor > 1
    kind = next((one.name for one in own.options.values() if type(one).__name__ == "SGDAccumulatorAndMomentum"), "")
    return not (kind == "Combined" and accumulates)


def stepped(optimiser, weights, grads, memory):
    """The weights after one update by `grads`, which are of the scaled loss."""
    own = state(optimiser)
    value = {name: pair[0] for name, pair in own.values.items()}
    found = dict(weights)
    for name, grad in grads.items():
        decay = own.specific.get(name, {}).get("weightDecay", (value["defaultWeightDecay"], True))[0]
        old, grad = weights[name].astype("float64"), grad / value["lossScaling"]
        moved = RULES[own.kind](grad, old, decay, value, own.options, memory.setdefault(name, {}))
        found[name] = (old - value["defaultLearningRate"] * moved).astype(weights[name].dtype)
    return found


def _sgd(grad, old, decay, value, options, memory):
    memory["velocity"] = value["defaultMomentum"] * memory.get("velocity", 0) + grad + decay * old
    return memory["velocity"]


def _adam(grad, old, decay, value, options, memory):
    beside = options["weight_decay_mode"].name == "Decay"
    grad = grad if beside else grad + decay * old
    memory["step"] = step = memory.get("step", 0) + 1
    first, second = value["defaultBeta1"], value["defaultBeta2"]
    memory["mean"] = first * memory.get("mean", 0) + (1 - first) * grad
    memory["square"] = second * memory.get("square", 0) + (1 - second) * grad**2
    root = (memory["square"] / (1 - second**step)) ** 0.5
    return memory["mean"] / (1 - first**step) / (root + value["defaultEps"]) + (decay * old if beside else 0)


def _adaptive(grad, old, decay, value, options, memory):
    grad, inside, eps = grad + decay * old, options["rmsprop_tf_variant"], value["defaultEps"]
    start = 1.0 if inside else 0.0
    alpha = value["defaultAlpha"]
    memory["square"] = alpha * memory.get("square", start) + (1 - alpha) * grad**2
    root = (memory["square"] + eps) ** 0.5 if inside else memory["square"] ** 0.5 + eps
    memory["velocity"] = value["defaultMomentum"] * memory.get("velocity", 0) + grad / root
    return memory["velocity"]


RULES = {"SGD": _sgd, "Adam": _adam, "Adaptive": _adaptive}
BEHAVIOURS = {
    **{f"popart.{kind}": made(kind) for kind in RULES},
    **{f"popart.{kind}.insertSpecific": specific for kind in RULES},
}
