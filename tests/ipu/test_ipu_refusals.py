"""If an IPU backend does not support an option, its cases skip and the others run. If none does, the run is refused."""

from __future__ import annotations

from typing import Callable, Dict, Sequence

import pytest
from collecting import Collected, collect
from ipu_fakes import FAKES, TOOLS_PATH
from suite import Suite

from fixtures.options import presets

CUT = ("--device", "ipu", "--model", "resnet8", "--mode", "training", "--pipeline-splits", "layer2.0")
IPU = ("--backend", "poptorch,popart,tensorflow_ipu")
# With two stages, PopTorch and PopART take 3 batches or more, and TensorFlow a multiple of 4.
LINES = {
    "what one cannot": (*IPU, *CUT, "--gradient-accumulation", "5"),
    "what none can": (*IPU, *CUT, "--gradient-accumulation", "2"),
    "what the only one cannot": ("--backend", "tensorflow_ipu", *CUT, "--gradient-accumulation", "5"),
    "what the one that -k leaves cannot": (*IPU, *CUT, "--gradient-accumulation", "5", "-k", "tensorflow_ipu"),
    "what none can at one point of two": (*IPU, *CUT, "--gradient-accumulation", "5", "--replicas", "2,3"),
    "beside a CPU": (*IPU, *CUT, "--gradient-accumulation", "5", "--device", "cpu,ipu"),
}


def of_preset(name: str) -> Sequence[str]:
    return (*IPU, "--device", "ipu", "--config", name)


@pytest.fixture(scope="module")
def collected(new_suite: Callable[[], Suite]) -> Dict[Sequence[str], Collected]:
    return collect(new_suite(), [*LINES.values(), *map(of_preset, presets.names())])


def errors(done: Collected) -> Sequence[str]:
    return [line for line in done.text.splitlines() if line.startswith("ERROR")]


@pytest.mark.parametrize("line", ["what one cannot", "beside a CPU"])
def test_a_case_of_each_backend_is_selected_although_one_cannot_run_it(line, collected):
    done = collected[LINES[line]]

    assert done.returncode == 0, done.text
    assert {"poptorch-ipu", "popart-ipu", "tensorflow_ipu-ipu"} <= {"-".join(name.split("-")[-2:]) for name in done.ids}


@pytest.mark.parametrize(
    "line, told",
    [
        ("what none can", "--gradient-accumulation 2: a grouped pipeline of 2 stages on poptorch takes at least 3"),
        ("what the only one cannot", "--gradient-accumulation 5: a grouped pipeline of 2 stages on tensorflow_ipu"),
        ("what the one that -k leaves cannot", "--gradient-accumulation 5: a grouped pipeline of 2 stages on tensor"),
        ("what none can at one point of two", "3 replicas x 2 IPUs are 6 IPUs; devices come in powers of two"),
    ],
)
def test_what_no_selected_backend_can_have_is_one_line(line, told, collected):
    done = collected[LINES[line]]

    assert done.returncode == 4, done.text
    assert len(errors(done)) == 1
    assert told in errors(done)[0]


@pytest.mark.parametrize("name", presets.names())
def test_a_preset_selects_a_case_of_each_backend_of_an_ipu(name, collected):
    done = collected[of_preset(name)]

    assert done.returncode == 0, done.text
    assert len(done.ids) == 3


def test_the_backend_that_cannot_skips_and_another_runs(suite):
    pytest.importorskip("onnx")

    done = suite.run(
        *("--backend", "popart,tensorflow_ipu", *CUT, "--gradient-accumulation", "5", "--benchmark-disable", "-rA"),
        PATH=TOOLS_PATH,
        PYTHONPATH=str(FAKES),
        POPLAR_SDK_ENABLED="/opt/poplar_sdk-3.4.0",
    )

    assert done.returncode == 0, done.text
    assert "1 passed, 1 skipped" in done.text
    assert "not supported: --gradient-accumulation 5: a grouped pipeline of 2 stages on tensorflow_ipu" in done.text
