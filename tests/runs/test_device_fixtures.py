"""Fixtures about devices in tests of one's own, on fakes: what they give, for how long, and what is refused."""

from __future__ import annotations

import re
import sys
from typing import Any, Callable, Dict, List

import pytest
from collecting import Collected, collect
from ipu_fakes import FAKES, TOOLS_PATH
from suite import XDIST, Result, Suite
from test_own_tests import EXAMPLES

FAKE = {
    "PYTHONPATH": str(FAKES),
    "PATH": TOOLS_PATH,
    "POPLAR_SDK_ENABLED": "/opt/fake",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "OMP_NUM_THREADS": "1",
}
ON_IPU = ("--device=ipu", "--backend=poptorch", "--batches-per-step=1", "--steps=2", "-rA")

# Which of the four chips nobody holds, and how many IPUs are left for other cases.
PROBE = """
import contextlib

import pytest
from bench import locks


def free_chips():
    with contextlib.ExitStack() as stack:
        return [chip for chip in range(4) if locks.take_if_free(stack, [f"ipu-chip{chip}"])]


def left_for_cases():
    with contextlib.ExitStack() as stack:
        return sum(locks.take_if_free(stack, [f"ipu{number}"]) for number in range(4))
"""

LIFETIMES = (
    PROBE
    + """

@pytest.mark.ipus(2)
def test_1_holds(ipu):
    assert (ipu.ipus, ipu.chips, ipu.id) == (2, (0, 1), 4)
    assert free_chips() == [2, 3]
    assert left_for_cases() == 2


def test_2_released():
    assert free_chips() == [0, 1, 2, 3]
    assert left_for_cases() == 4


@pytest.mark.ipus(4)
def test_3_fails(ipu):
    assert free_chips() == []
    raise RuntimeError("on purpose")


def test_4_released_after_a_failure():
    assert free_chips() == [0, 1, 2, 3]
    assert left_for_cases() == 4


@pytest.fixture
def broken(ipu):
    raise RuntimeError("on purpose")


def test_5_does_not_start(broken):
    pass


def test_6_released_after_an_error():
    assert free_chips() == [0, 1, 2, 3]


@pytest.mark.parametrize("ipu", [1, 2, 4], indirect=True)
def test_7_sizes(ipu, request):
    assert ipu.ipus == request.node.callspec.params["ipu"]
"""
)


@pytest.fixture(scope="module")
def mine(new_suite: Callable[[], Suite]) -> Suite:
    """A copy of which only a folder of its own is collected."""
    made = new_suite()
    made.paths = ["mine"]
    return made


def run(suite: Suite, text: str, *args: str, **env: str) -> Result:
    """Run a file of tests, the only one, on the fakes."""
    for path in (suite.root / "mine").glob("*.py"):
        path.unlink()
    suite.add("mine/test_it.py", text)
    return suite.run(*(args or ("-rA",)), **{**FAKE, **env})


def outcomes(result: Result) -> Dict[str, str]:
    found = re.findall(r"^(PASSED|FAILED|ERROR) mine/\S+::(\S+)", result.stdout, re.MULTILINE)
    return {name: word for word, name in found}


@pytest.fixture(scope="module")
def lifetimes(mine: Suite) -> Dict[str, str]:
    return outcomes(run(mine, LIFETIMES))


@pytest.mark.parametrize(
    "name", ["test_1_holds", "test_2_released", "test_4_released_after_a_failure", "test_6_released_after_an_error"]
)
def test_an_ipu_is_held_for_one_test_and_no_longer(lifetimes: Dict[str, str], name: str) -> None:
    assert (lifetimes["test_3_fails"], lifetimes["test_5_does_not_start"]) == ("FAILED", "ERROR")
    assert lifetimes[name] == "PASSED"


def test_an_ipu_has_the_size_of_a_parameter(lifetimes: Dict[str, str]) -> None:
    assert [lifetimes[f"test_7_sizes[{size}]"] for size in (1, 2, 4)] == ["PASSED"] * 3


def test_an_ipu_has_the_size_that_the_command_line_says(mine: Suite) -> None:
    text = "def test_it(ipu, device):\n    assert (ipu.ipus, device) == (4, 'ipu')\n"

    result = run(mine, text, "--device=ipu", "--replicas=4", "-rA")

    assert outcomes(result) == {"test_it[ipu]": "PASSED"}, result.text


def test_an_ipu_to_which_a_process_is_attached_is_not_given(mine: Suite) -> None:
    text = "def test_it(ipu):\n    assert ipu.id == 2\n"

    result = run(mine, text, FAKE_IPU_BUSY="0,1")

    assert outcomes(result) == {"test_it": "PASSED"}, result.text


@pytest.mark.parametrize(
    "env, told",
    [
        ({"FAKE_IPU_BUSY": "0,1,2,3"}, "not present: a free device of 1 IPUs; .*; held by 0: somebody, /usr/bin/other"),
        ({"FAKE_IPU_COUNT": "0"}, "not present: no IPU; gc-info -l lists none"),
        ({"POPLAR_SDK_ENABLED": ""}, "not present: no IPU; POPLAR_SDK_ENABLED is not set"),
    ],
)
def test_where_there_is_no_ipu_a_test_skips(mine: Suite, env: Dict[str, str], told: str) -> None:
    text = "def test_it(ipu):\n    raise RuntimeError('not reached')\n"

    result = run(mine, text, "-rs", **env)

    assert result.returncode == 0, result.text
    assert "1 skipped" in result.stdout
    assert re.search(told, result.stdout), result.stdout


def test_where_there_is_no_device_of_the_size_a_test_skips(mine: Suite) -> None:
    text = "import pytest\n\n\n@pytest.mark.ipus(8)\ndef test_it(ipu):\n    raise RuntimeError('not reached')\n"

    result = run(mine, text, "-rs")

    assert "1 skipped" in result.stdout
    assert "not present: a device of 8 IPUs; gc-info -l lists 0: 1 IPU" in result.stdout


def test_a_device_of_another_host_cannot_be_held_here(mine: Suite) -> None:
    text = "def test_it(ipu):\n    raise RuntimeError('not reached')\n"

    result = run(mine, text, f"--worker-host=popen//python={sys.executable}")

    assert result.returncode == 1, result.text
    assert "leave --worker-host and launchers out" in result.stdout
    assert "not reached" not in result.stdout
    assert "Traceback" not in result.text


def test_two_tests_at_once_hold_different_ipus(mine: Suite) -> None:
    pytest.importorskip("xdist")
    # Each waits until the other has its device as well.
    text = """
        import time
        from pathlib import Path
        import pytest

        @pytest.mark.parametrize("own, other", [("a", "b"), ("b", "a")])
        def test_it(ipu, own, other):
            Path(own).write_text(str(ipu.id))
            deadline = time.monotonic() + 60
            while not (Path(other).exists() and Path(other).read_text()):
                assert time.monotonic() < deadline
                time.sleep(0.01)
        """

    result = run(mine, text, *XDIST, "-n", "2")

    assert result.returncode == 0, result.text
    assert {(mine.root / name).read_text() for name in "ab"} == {"0", "1"}


@pytest.fixture(scope="module")
def example(new_suite: Callable[[], Suite]) -> Result:
    """The example of the documentation, on a fake IPU."""
    pytest.importorskip("torch")
    suite = new_suite()
    suite.paths = ["mine"]
    for name, text in EXAMPLES.items():
        suite.add(name, text)
    return suite.run(*ON_IPU, "--hidden-size=8", "--timesteps=3", "--benchmark-json=run.json", **FAKE)


def test_the_example_of_the_documentation_passes_on_a_fake_ipu(example: Result) -> None:
    ids = [f"{name}-inference-b{batch}-fp32-x1-poptorch-ipu" for name, batch in (("lstm-h8_t3", 1), ("gated-w16", 4))]

    assert example.returncode == 0, example.text
    assert outcomes(example) == {
        f"test_gated[{ids[1]}]": "PASSED",
        **{f"test_prefetch[{id}-{way}]": "PASSED" for id in ids for way in ("plain", "no_prefetch")},
        "test_program_of_my_own": "PASSED",
    }


OPTIONS = """
import pytest
from bench.cases.poplar import Poplar

pytestmark = [pytest.mark.workload("dense"), pytest.mark.poplar(num_io_tiles=64, prefetch=False)]


def told(measure, case):
    return measure(case)["record"]["poplar"]


def test_the_file(case, measure):
    assert told(measure, case) == "prefetch=False, num_io_tiles=64"


@pytest.mark.poplar(num_io_tiles=32, stable_norm=True)
def test_the_closest_wins(case, measure, poplar):
    assert (poplar.num_io_tiles, poplar.prefetch) == (32, False)
    assert told(measure, case) == "prefetch=False, num_io_tiles=32, stable_norm=True"


@pytest.mark.parametrize("poplar", [{"prefetch": True}], indirect=True)
def test_a_parameter_wins(case, measure, poplar):
    assert told(measure, case) == "num_io_tiles=64"


@pytest.mark.parametrize("poplar", [Poplar(stochastic_rounding=False)])
def test_a_whole_one_replaces(case, measure, poplar):
    assert told(measure, case) == "stochastic_rounding=False"


def test_with_its_own_device(case, measure, ipu):
    assert told(measure, case) == "prefetch=False, num_io_tiles=64"
    assert measure is not None and ipu.ipus == case.replicas
"""


@pytest.fixture(scope="module")
def with_options(mine: Suite) -> Dict[str, str]:
    pytest.importorskip("torch")
    # How many replicas a case has does not matter to its options: each set of them needs one worker that loads torch.
    chosen = "x1 or own_device"
    return outcomes(run(mine, OPTIONS, *ON_IPU, "--units=8", "--replicas=1,4", "-k", chosen))


@pytest.mark.parametrize(
    "test, parameter, replicas",
    [
        ("test_the_file", "", 1),
        ("test_the_closest_wins", "", 1),
        ("test_a_parameter_wins", "-poplar0", 1),
        ("test_a_whole_one_replaces", "-poplar0", 1),
        ("test_with_its_own_device", "", 1),
        # Of four IPUs, which are all there are: its worker does not wait for others.
        ("test_with_its_own_device", "", 4),
    ],
)
def test_options_of_a_marker_and_of_a_parameter_reach_the_worker(
    with_options: Dict[str, str], test: str, parameter: str, replicas: int
) -> None:
    assert with_options[f"{test}[dense-u8-inference-b32-fp32-x{replicas}-poptorch-ipu{parameter}]"] == "PASSED"


def test_a_cpu_s_case_takes_no_notice_of_an_ipu_s_options(mine: Suite) -> None:
    text = """
        import pytest

        @pytest.mark.workload("dense")
        @pytest.mark.poplar(prefetch=False)
        def test_it(case, measure):
            assert measure(case)["record"]["poplar"] == ""
        """

    result = run(mine, text, "--units=8", "--steps=2", "-rA")

    assert list(outcomes(result).values()) == ["PASSED"], result.text


WRONG = {
    "ipus": "@pytest.mark.ipus takes one number",
    "ipus(1, 2)": "@pytest.mark.ipus takes one number",
    "ipus(3)": "@pytest.mark.ipus: 3 is not a number of IPUs; devices have 1, 2, 4, 8",
    "ipus('2')": "@pytest.mark.ipus: '2' is not a number of IPUs",
    "ipus(True)": "@pytest.mark.ipus: True is not a number of IPUs",
    "poplar": "@pytest.mark.poplar takes options by name",
    "poplar(False)": "@pytest.mark.poplar takes options by name",
    "poplar(prefetsh=False)": "@pytest.mark.poplar: option 'prefetsh' (did you mean prefetch?)",
    "poplar(prefetch=3)": "@pytest.mark.poplar: prefetch: '3' is not one of on, off",
    "poplar(num_io_tiles='many')": "@pytest.mark.poplar: num_io_tiles: 'many' is not a whole number",
    "poplar(available_memory_proportion=1.5)": "available_memory_proportion: 1.5 is not within 0 to 1",
    "poplar(engine_options={'x': 1})": "engine_options: option 'x'",
    "poplar(num_io_tiles=33)": "--num-io-tiles 33: an even number from 32 to 192",
    "parametrize('poplar', [7])": "the parameter poplar is 7; a Poplar is needed, or a dictionary of options",
    "parametrize('poplar', [{'pref': 1}])": "the parameter poplar: option 'pref'",
    "parametrize('ipu', [3], indirect=True)": "3 is not a number of IPUs",
}


@pytest.fixture(scope="module")
def refused(new_suite: Callable[[], Suite]) -> Dict[str, Collected]:
    """What pytest says to a test with each mark of WRONG."""
    suite = new_suite()
    files = {mark: f"mine/test_it{index}.py" for index, mark in enumerate(WRONG)}
    for mark, file in files.items():
        suite.add(
            file,
            f"""
            import pytest

            @pytest.mark.workload("dense")
            @pytest.mark.{mark}
            def test_it(case, measure, ipu, poplar):
                measure(case)
            """,
        )
    args = ("--device=ipu", "--backend", "poptorch")
    found = collect(suite, [(file, *args) for file in files.values()], paths=(), **FAKE)
    return {mark: found[(file, *args)] for mark, file in files.items()}


@pytest.mark.parametrize("mark", WRONG)
def test_what_a_marker_says_wrong_is_refused_in_one_line(refused: Dict[str, Collected], mark: str) -> None:
    done = refused[mark]

    assert done.returncode == 4, done.text
    (line,) = re.findall("^ERROR.*", done.text, re.MULTILINE)
    assert re.match(r"ERROR: mine/test_it\d+\.py::test_it: ", line)
    assert WRONG[mark] in line
    assert "Traceback" not in done.text


DEVICES = """
import pytest


def test_named(device):
    assert device in ("cpu", "ipu")


def test_described(device, device_facts):
    assert device_facts["model"]


@pytest.mark.parametrize("device", ["mine"])
def test_a_parameter_of_its_own(device):
    assert device == "mine"


class TestOfItsOwn:
    @pytest.fixture
    def device(self):
        return "own"

    def test_stays(self, device):
        assert device == "own"


@pytest.mark.workload("dense")
def test_of_a_case(case, device, device_facts):
    assert (device, "cores" in device_facts) == (case.device, case.device == "cpu")
"""


@pytest.fixture(scope="module")
def devices(mine: Suite) -> Dict[str, str]:
    return outcomes(run(mine, DEVICES, "--device=cpu,ipu", "--units=8", "--backend=numpy,poptorch", "-rA"))


def test_a_test_runs_once_for_each_device_and_knows_it(devices: Dict[str, str]) -> None:
    plain = {name: word for name, word in devices.items() if "dense" not in name}

    assert plain == {
        **{f"test_{test}[{name}]": "PASSED" for test in ("named", "described") for name in ("cpu", "ipu")},
        "test_a_parameter_of_its_own[mine]": "PASSED",
        "test_stays": "PASSED",
    }


def test_the_device_of_a_case_is_the_case_s(devices: Dict[str, str]) -> None:
    cases: List[Any] = [word for name, word in devices.items() if "dense" in name]

    assert cases == ["PASSED"] * 4


def test_a_device_that_is_not_there_has_no_description(mine: Suite) -> None:
    result = run(mine, "def test_it(device_facts):\n    pass\n", "--device=ipu", "-rs", POPLAR_SDK_ENABLED="")

    assert result.returncode == 0, result.text
    assert "not present: no IPU; POPLAR_SDK_ENABLED is not set" in result.stdout
