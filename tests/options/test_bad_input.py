"""What a user gets wrong: one line that names the value and what is allowed, and nothing is lost."""

from __future__ import annotations

import copy
import json
from typing import Any, Callable, Dict, List, Tuple

import pytest
from suite import SMALL, Suite

from bench import backends, devices, workloads

DIMENSIONS = workloads.dimensions(workloads.names())
WHOLE = sorted("--" + name.replace("_", "-") for name, each in DIMENSIONS.items() if not each.choices)
CHOSEN = sorted("--" + name.replace("_", "-") for name, each in DIMENSIONS.items() if each.choices and not each.flag)
FLAGS = sorted("--" + name.replace("_", "-") for name, each in DIMENSIONS.items() if each.flag)

# Arguments, and what the one line must say: the value, and what is allowed.
UNKNOWN: List[Tuple[List[str], List[str]]] = [
    (["--backend=tourch"], ["'tourch'", "did you mean torch?", ", ".join(backends.names())]),
    (["--backend=numpy,tourch"], ["'tourch'", ", ".join(backends.names())]),
    (["--device=gpu"], ["'gpu'", ", ".join(devices.names())]),
    (["--precision=fp8"], ["'fp8'", "fp32, fp16, bf16"]),
    (["--mode=tran"], ["'tran'", "did you mean training?", "inference, eval, training"]),
    (["-k", "nolayer"], ["'nolayer'", ", ".join(workloads.names("layers"))]),
    (["--sizes=u7"], ["'u7'", "first, all", "u1024 (dense)"]),
    (["--sizes=u1024,u7"], ["'u7'", "first, all", "u1024 (dense)"]),
    (["--sizes=first,all"], ["first,all", "stand alone"]),
    (["--data=imagined"], ["'imagined'", "synthetic, generated, real"]),
    (["--data=synthetic,generated"], ["synthetic,generated"]),
    (["--tuning=fast"], ["'fast'", "best, default"]),
    (["--tuning=best,default"], ["best,default"]),
    (["--pin=4095"], ["4095", "auto, none"]),
    (["--pin=x"], ["'x'"]),
    (["--pin=0,0"], ["'0'", "twice"]),
    (["--hidden-size=8", "-k", "dense"], ["--hidden-size", "dense", "gru, lstm"]),
    (["--units=8", "-k", "gru or hmc"], ["--units", "gru, hmc", "it is for dense"]),
    (["--filter-out=10", "--group-dim=3", "-k", "grouped_conv"], ["group_dim=3", "filter_out=10", "grouped_conv"]),
    (["--filter-in=10", "--group-dim=8", "-k", "grouped_conv"], ["8 groups", "filter_in=10"]),
    (["--leapfrog-steps=4", "-k", "hmc"], ["leapfrog_steps=4", "odd"]),
    (["--leapfrog-steps=5,6", "-k", "hmc"], ["leapfrog_steps=6", "odd"]),
    (["--benchmark-max-time=-1"], ["-1"]),
    (["--benchmark-max-time=soon"], ["soon"]),
    (["--benchmark-max-time=inf"], ["--benchmark-max-time", "finite"]),
    (["--benchmark-max-time=nan"], ["--benchmark-max-time", "finite"]),
    (["--benchmark-group-by=colour"], ["'colour'", "fullname, func"]),
    (["--benchmark-group-by=param:colour"], ["no parameter 'colour'"]),
    (["--benchmark-compare-fail=min:5%"], ["--benchmark-compare"]),
    (["--benchmark-storage=ftp://host/folder"], ["ftp://host/folder", "file://PATH"]),
    (["--benchmark-warmup=off"], ["--benchmark-warmup", "steady"]),
    (["--benchmark-min-rounds=0"], ["at least 1"]),
    (["--nonsense"], ["--nonsense"]),
    (["--baseline-accept=why"], ["--baseline-accept", "--baseline FILE, DIR or NAME"]),
    (["--require-baseline"], ["--require-baseline", "--baseline FILE, DIR or NAME"]),
    (["--baseline=base.json", "--baseline-accept= "], ["--baseline-accept", "why"]),
    (["--baseline="], ["--baseline", "empty"]),
]


def values(option: str, *bad: Tuple[str, str]) -> List[Tuple[List[str], List[str]]]:
    return [([f"{option}={value}"], [option, said]) for value, said in bad]


NUMBERS = [
    *values("--batch-size", ("0", "0 is not within 1"), ("-1", "-1"), ("99999999999", "99999999999")),
    *values(
        "--batch-size", ("x", "'x'"), ("1.5", "'1.5'"), ("", "empty"), ("1,", "empty"), ("2,2", "'2' is given twice")
    ),
    *values("--replicas", ("0", "0"), ("x", "'x'"), ("1,1", "twice")),
    *values("--steps", ("0", "0"), ("x", "'x'"), ("", "empty")),
    *values("--batches-per-step", ("0", "0"), ("-3", "-3"), ("x", "'x'")),
    *values("--threads", ("0", "0"), ("99999", "99999"), ("many", "'many'")),
    *values("--case-timeout", ("0", "0"), ("-1", "-1"), ("nan", "nan"), ("soon", "'soon'")),
    *values("--budget", ("-1", "-1"), ("nan", "nan"), ("0%", "0%"), ("100", "100"), ("5%%", "'5%%'"), ("", "empty")),
    *values("--processes", ("0", "0"), ("1.5", "'1.5'"), ("101", "101"), ("", "empty")),
    *values(
        "--units", ("0", "0"), ("99999999", "99999999"), ("x", "'x'"), ("", "empty"), ("8,08", "'08' is given twice")
    ),
    *values("--precision", ("", "empty"), ("fp32,32.32", "twice"), ("fp32,", "empty")),
    *values("--backend", ("", "empty"), ("numpy,numpy", "'numpy' is given twice")),
    *[each for option in WHOLE for each in values(option, ("-1", "-1 is not within"))],
    *[each for option in CHOSEN for each in values(option, ("perhaps", "'perhaps' is not one of"))],
    *[each for option in FLAGS for each in values(option, ("perhaps", "explicit argument 'perhaps'"))],
]


@pytest.mark.parametrize("args, said", UNKNOWN + NUMBERS, ids=lambda each: " ".join(each))
def test_a_bad_value_is_one_line_that_names_it_and_what_is_allowed(
    refused: Callable[..., str], args: List[str], said: List[str]
) -> None:
    line = refused("-k", "dense", *args)

    assert [each for each in said if each not in line] == [], line


def test_a_size_that_only_a_deselected_layer_refuses_is_fine(history: Suite) -> None:
    """grouped_conv cannot have 10 filters out of 64; conv can."""
    result = history.run("--filter-out=10", "-k", "conv and not grouped", "--collect-only", "-q")

    assert result.returncode == 0, result.text
    assert "f10" in result.stdout


def changed(content: Any, **values: Any) -> str:
    content = copy.deepcopy(content)
    content["benchmarks"][0]["extra_info"].update(values)
    return json.dumps(content)


def without(content: Any, key: str) -> str:
    content = copy.deepcopy(content)
    del content["benchmarks"][0]["extra_info"][key]
    return json.dumps(content)


BASELINES: Dict[str, Tuple[Callable[[Any], str], List[str]]] = {
    "cut_off": (lambda base: json.dumps(base)[:-40], ["not JSON, or cut off"]),
    "empty": (lambda base: "", ["not JSON, or cut off"]),
    "prose": (lambda base: "as fast as last year", ["not JSON, or cut off"]),
    "list": (lambda base: "[]", ["no list of benchmarks"]),
    "other_json": (lambda base: '{"benchmarks": 3}', ["no list of benchmarks"]),
    "other_suite": (lambda base: '{"benchmarks": [{"extra_info": {}}]}', ["schema None", "this suite writes"]),
    "other_schema": (lambda base: changed(base, schema=99), ["schema 99", "this suite writes"]),
    "other_machine": (lambda base: changed(base, device_model="Z80"), ["another machine", "Z80"]),
    "text_for_a_rate": (lambda base: changed(base, items_per_s="fast"), ["items_per_s"]),
    "rate_of_zero": (lambda base: changed(base, items_per_s=0), ["items_per_s"]),
    "no_rate": (lambda base: without(base, "items_per_s"), ["items_per_s"]),
    "no_device": (lambda base: without(base, "device"), ["device"]),
}


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_that_is_none_is_one_line(history: Suite, refused: Callable[..., str], name: str) -> None:
    make, said = BASELINES[name]
    history.add(f"{name}.json", make(history.read("base.json")))

    line = refused(*SMALL, f"--baseline={name}.json")

    assert [each for each in [f"{name}.json", *said] if each not in line] == [], line


@pytest.mark.parametrize(
    "value, said",
    [
        ("nowhere.json", "No such file"),
        ("none_of_this_name", "none_of_this_name.json"),
        ("empty/", "no *.json"),
        ("run.json/x.json", "Not a directory"),
    ],
)
def test_a_baseline_that_is_not_there_is_one_line(refused: Callable[..., str], value: str, said: str) -> None:
    line = refused(*SMALL, f"--baseline={value}")

    assert said in line


@pytest.mark.parametrize("why", [[], ["--baseline-accept=again"]], ids=["met", "replaced"])
def test_a_damaged_baseline_is_neither_met_nor_replaced(
    history: Suite, refused: Callable[..., str], why: List[str]
) -> None:
    history.add("damaged.json", '{"accepted": [], "bench')

    assert "damaged.json" in refused(*SMALL, "--baseline=./damaged.json", *why)


def test_a_framework_that_fails_to_import_is_one_line(suite: Suite) -> None:
    suite.add("halfinstalled/__init__.py", 'raise ImportError("libhalf.so.3: cannot open shared object file")')
    suite.add(
        "bench/backends/half.py",
        """
        from bench.backends.numpy import DEVICES, MODES, compile, environment, unsupported

        PACKAGE = "halfinstalled"


        def version():
            import halfinstalled

            return halfinstalled.__version__
        """,
    )

    result = suite.run(*SMALL, "--backend=half,numpy", "--benchmark-json=run.json", "-rf", "--tb=short")

    assert result.returncode == 1
    assert "Traceback" not in result.text
    assert "libhalf.so.3: cannot open shared object file" in result.stdout
    assert [name.split("-")[-2] for name in suite.ids("run.json")] == ["numpy"]
