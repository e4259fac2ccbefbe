"""What the backend of TensorFlow for IPU says without TensorFlow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import backends
from bench.cases import poplar
from bench.cases.case import Settings
from bench.cases.poplar import Poplar
from bench.cases.precision import PRECISIONS

ENGINE = backends.load("tensorflow_ipu")
ROOT = Path(__file__).resolve().parents[2]


def test_bfloat16_is_refused_and_nothing_else():
    assert {p for p in PRECISIONS if ENGINE.unsupported(p, "training", "ipu")} == {"bf16", "bf16m"}


def test_flags_and_engine_options_go_through_the_environment(monkeypatch):
    for name in ("TF_POPLAR_FLAGS", "POPLAR_ENGINE_OPTIONS", "POPLAR_RUNTIME_OPTIONS"):
        monkeypatch.delenv(name, raising=False)
    told = Poplar(ipu_model=True, executable_cache="/c", cycle_count=True, internal_exchange_target="memory")
    found = ENGINE.environment(Settings(poplar=told), "ipu")

    assert found["TF_POPLAR_FLAGS"].split() == ["--use_ipu_model", "--executable_cache_path=/c", "--log_cycle_count=0"]
    assert json.loads(found["POPLAR_ENGINE_OPTIONS"]) == {"opt.internalExchangeOptimisationTarget": "memory"}
    assert ENGINE.environment(Settings(), "ipu") == {}


def test_a_flag_that_would_end_the_process_is_refused(monkeypatch):
    monkeypatch.setenv("TF_POPLAR_FLAGS", "--use_ipu_modle")

    with pytest.raises(ValueError, match="did you mean use_ipu_model"):
        ENGINE.environment(Settings(), "ipu")


def test_the_checked_program_is_the_one_that_poplar_names():
    assert ENGINE.checkable is poplar.checkable


def test_stock_tensorflow_is_told_from_the_sdks():
    code = "from bench import backends; backends.load('tensorflow_ipu').version()"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)

    assert "ImportError: the SDK's TensorFlow is not enabled, or was built for another Python" in done.stderr
