"""The updates of PopTorch's optimisers, one tensor at a time, in 32 bits."""

from __future__ import annotations

import torch


class Rule:
    """What an optimiser remembers of each weight, by name."""

    def __init__(self, held):
        self.told = {key: value for key, value in held.arguments.items() if value is not None}
        self.memory = {}

    def updated(self, name, weight, gradient, group):
        raise NotImplementedError


class SGD(Rule):
    def updated(self, name, weight, gradient, group):
        gradient = gradient + group["weight_decay"] * weight
        momentum = self.told.get("momentum", 0.0)
        if momentum:
            gradient = momentum * self.memory.get(name, 0.0) + gradient
            self.memory[name] = gradient
        return weight - group["lr"] * gradient


class RMSprop(Rule):
    def updated(self, name, weight, gradient, group):
        gradient = gradient + group["weight_decay"] * weight
        tensorflow = self.told.get("use_tf_variant", False)
        start = torch.ones_like(weight) if tensorflow else torch.zeros_like(weight)
        square, velocity = self.memory.get(name, (start, torch.zeros_like(weight)))
        alpha, eps = self.told["alpha"], self.told["eps"]
        square = alpha * square + (1 - alpha) * gradient**2
        root = (square + eps).sqrt() if tensorflow else square.sqrt() + eps
        velocity = self.told.get("momentum", 0.0) * velocity + (group["lr"] if tensorflow else 1) * gradient / root
        self.memory[name] = (square, velocity)
        return weight - (velocity if tensorflow else group["lr"] * velocity)


class Adam(Rule):
    decoupled = False

    def updated(self, name, weight, gradient, group):
        decay = group["weight_decay"]
        gradient = gradient if self.decoupled else gradient + decay * weight
        (b1, b2), eps = self.told.get("betas", (0.9, 0.999)), self.told["eps"]
        step, first, second = self.memory.get(name, (0, 0.0, 0.0))
        first, second, step = b1 * first + (1 - b1) * gradient, b2 * second + (1 - b2) * gradient**2, step + 1
        self.memory[name] = (step, first, second)
        move = (first / (1 - b1**step)) / ((second / (1 - b2**step)).sqrt() + eps)
        weight = weight * (1 - group["lr"] * decay) if self.decoupled else weight
        return weight - group["lr"] * move


class AdamW(Adam):
    decoupled = True


RULES = {"SGD": SGD, "Adam": Adam, "AdamW": AdamW, "RMSprop": RMSprop}
