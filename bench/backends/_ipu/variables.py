"""The environment variables that Poplar reads: options of its engine and runtime, and flags of TensorFlow."""

from __future__ import annotations

import json
from typing import Dict, Mapping, Sequence

from bench.cases.case import Settings
from bench.cases.poplar import TF_FLAGS, json_texts
from bench.registry import unknown


def engine_options(settings: Settings) -> Dict[str, str]:
    """The options of Poplar's engine."""
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
    """The variables that Poplar reads: the settings, merged into the values in `environ`.

    Raises ValueError for a value that is not a JSON object, and for a key with two values.
    """
    variables = {}
    both = {"ENGINE": engine_options(settings), "RUNTIME": dict(settings.poplar.runtime_options)}
    for kind, options in both.items():
        name = f"POPLAR_{kind}_OPTIONS"
        present = json_texts(name, environ.get(name, "") or "{}")
        for key in sorted(set(options) & set(present)):
            if options[key] != present[key]:
                raise ValueError(f"{name} says {key}={present[key]}, the command line {options[key]}; leave one out")
        if options or present:
            variables[name] = json.dumps({**present, **options}, sort_keys=True)
    return variables


def tf_flags(flags: Sequence[str], environ: Mapping[str, str]) -> str:
    """The value of TF_POPLAR_FLAGS: the flags in `environ`, then `flags`.

    Raises ValueError for an unknown flag, at which TensorFlow would end the process, and for a flag with two values.
    """
    by_name: Dict[str, str] = {}
    for flag in [*environ.get("TF_POPLAR_FLAGS", "").split(), *flags]:
        name = flag.lstrip("-").split("=")[0]
        if not flag.startswith("--") or name not in TF_FLAGS:
            raise ValueError(f"TF_POPLAR_FLAGS: flag {unknown(name, TF_FLAGS)}")
        if by_name.get(name, flag) != flag:
            raise ValueError(f"TF_POPLAR_FLAGS: {by_name[name]} and {flag} contradict each other")
        by_name[name] = flag
    return " ".join(by_name.values())
