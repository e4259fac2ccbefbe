"""A program of plain functions, as the IPU's backends still make it: it goes when they derive from Program."""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping, Optional

from bench.group import ALONE
from bench.program import Arrays, Batches, Program

Call = Callable[[], None]


class Closures(Program):
    def __init__(
        self,
        run: Call,
        feed: Callable[[Batches], None],
        outputs: Callable[[], Arrays],
        compute: str,
        held: str,
        weights: Optional[Callable[[], Arrays]] = None,
        load: Optional[Callable[[Mapping[str, Any]], None]] = None,
        set_learning_rate: Optional[Callable[[float], None]] = None,
        compute_only: Optional[Call] = None,
        predict: Optional[Callable[[Mapping[str, Any]], Any]] = None,
        facts: Optional[Dict[str, Any]] = None,
        looped: bool = False,
        told: Optional[Callable[[], Dict[str, Any]]] = None,
        close: Optional[Call] = None,
        source: str = "measured",
    ) -> None:
        self.group = ALONE
        self.training = weights is not None
        self.run_resident = compute_only or run  # type: ignore[method-assign]
        self.feed = feed  # type: ignore[method-assign,assignment]
        self.outputs = outputs  # type: ignore[method-assign]
        self.compute_dtype, self.weight_dtype = compute, held
        self.facts, self.source, self.device_loop = facts or {}, source, looped
        given = {"weights": weights, "load": load, "set_learning_rate": set_learning_rate, "predict": predict}
        vars(self).update({name: call for name, call in given.items() if call is not None})
        self.moved, self.told, self.close = run, told, close
        # Their names until now, which the tests of these backends ask.
        self.compute, self.held, self.looped, self.compute_only = compute, held, looped, compute_only

    @property
    def run(self) -> Call:
        return self.moved

    def device_facts(self) -> Dict[str, Any]:
        return self.told() if self.told is not None else {}

    def release(self) -> None:
        if self.close is not None:
            self.close()
