"""What Poplar reads from the environment: its engine's options, and TensorFlow's flags."""

from __future__ import annotations

import json
from typing import Dict, Mapping, Sequence

from bench.cases.case import Settings
from bench.cases.poplar import TF_FLAGS, json_texts, unknown


def engine_options(settings: Settings) -> Dict[str, str]:
    """What the options mean for Poplar's engine."""
    poplar = settings.poplar
    options: Dict[str, str] = {}
    if poplar.internal_exchange_target:
        options["opt.internalExchangeOptimisationTarget"] = poplar.internal_exchange_target
    if not poplar.prefetch or settings.min_latency:
        options["exchange.enablePrefetch"] = "false"
    if poplar.profile:
        options.update({"autoReport.all": "true", "autoReport.directory": poplar.profile})
    return {**options, **poplar.engine_options}


def environment(settings: Settings, environ: Mapping[str, str]) -> Dict[str, str]:
    """The variables that Poplar reads, with what is in `environ` already: it stays, and what contradicts is refused.

    Raises ValueError for text that is no JSON object, and for a key that is set to two values.
    """
    variables = {}
    options = {"ENGINE": engine_options(settings), "RUNTIME": dict(settings.poplar.runtime_options)}
    for kind, ours in options.items():
        name = f"POPLAR_{kind}_OPTIONS"
        present = json_texts(name, environ.get(name, "") or "{}")
        for key in sorted(set(ours) & set(present)):
            if ours[key] != present[key]:
                raise ValueError(f"{name} says {key}={present[key]}, the command line {ours[key]}; leave one out")
        if ours or present:
            variables[name] = json.dumps({**present, **ours}, sort_keys=True)
    return variables


def tf_flags(flags: Sequence[str], environ: Mapping[str, str]) -> str:
    """TF_POPLAR_FLAGS with `flags` behind those that are there. Raises ValueError for a flag that TensorFlow
    does not know, at which it would end the process, and for one that is set to two values."""
    by_name: Dict[str, str] = {}
    for flag in [*environ.get("TF_POPLAR_FLAGS", "").split(), *flags]:
        name = flag.lstrip("-").split("=")[0]
        if not flag.startswith("--") or name not in TF_FLAGS:
            raise ValueError(f"TF_POPLAR_FLAGS: no flag {unknown(name, TF_FLAGS)}")
        if by_name.get(name, flag) != flag:
            raise ValueError(f"TF_POPLAR_FLAGS: {by_name[name]} and {flag} contradict each other")
        by_name[name] = flag
    return " ".join(by_name.values())
