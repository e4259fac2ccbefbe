"""Weight updates in torch: gradient accumulation, and all-reduce over several replicas."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any, Callable, Iterator

import torch
import torch.distributed as dist

from bench.backends.torch import optimisers
from bench.cases.case import Case
from bench.cases.precision import loss_scale
from bench.cases.recipe import Recipe
from bench.group import Group


class Trainer:
    """Runs weight updates: the forward and backward pass of each batch, then the optimiser.

    model   the module of the forward pass; with several replicas it is wrapped so that torch all-reduces its gradients
    """

    def __init__(self, model: Any, case: Case, recipe: Recipe, elements: int, group: Group) -> None:
        self.recipe = recipe
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimiser = optimisers.make(recipe, self.parameters)
        self.scale = recipe.loss_scaling or loss_scale(case.precision, elements)
        self.model, self._all_reducing = model, group.count > 1
        if group.count > 1:
            _join(case.device, group)
            with warnings.catch_warnings():
                # torch 2.13 deprecates this name, and older versions do not have the new one.
                warnings.simplefilter("ignore", FutureWarning)
                self.model = torch.nn.parallel.DistributedDataParallel(
                    model, broadcast_buffers=False, gradient_as_bucket_view=True
                )

    def set_learning_rate(self, rate: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = rate / self.scale if self.recipe.linear else rate

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """No all-reduce within the context, so that the weights of the replicas diverge."""
        self._all_reducing = False
        try:
            yield
        finally:
            self._all_reducing = True

    def update(self, forward: Callable[..., Any], loss_of: Callable[..., Any], every: Any) -> Any:
        """Run one weight update, and return the output and the loss of the last batch.

        The gradients of all batches are all-reduced once, with the last batch.
        """
        self.optimiser.zero_grad(set_to_none=True)
        factor = self.scale / len(every)
        for index, (xs, ys) in enumerate(every):
            # Cleared here and detached at the end: each autograd graph is freed before the next one is built.
            output: Any = None
            loss: Any = None
            with self._quiet(index == len(every) - 1):
                output = forward(*xs)
                loss = loss_of(output, ys)
                (loss * factor if factor != 1 else loss).backward()
        if self.scale != 1 and not self.recipe.linear:
            torch._foreach_mul_([p.grad for p in self.parameters if p.grad is not None], 1 / self.scale)
        self.optimiser.step()
        return output.detach(), loss.detach()

    def _quiet(self, last: bool) -> Any:
        if self.model.__class__ is not torch.nn.parallel.DistributedDataParallel or (last and self._all_reducing):
            return contextlib.nullcontext()
        return self.model.no_sync()


def _join(device: str, group: Group) -> None:
    """Initialise torch's process group, once. Rank 0 runs its store."""
    if dist.is_initialized():
        return
    store: Any = None
    if group.rank == 0:
        store = dist.TCPStore(group.host, 0, group.count, is_master=True, wait_for_workers=False)
    port = group.all_gather(store.port if store else None)[0]
    if store is None:
        store = dist.TCPStore(group.host, port, group.count, is_master=False)
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo", store=store, rank=group.rank, world_size=group.count
    )
