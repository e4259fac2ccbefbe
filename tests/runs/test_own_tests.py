"""Files of tests that are not the suite's: a model in one is a workload like all others; else one clear line."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
from collecting import Collected, collect
from suite import XDIST, Suite

from bench.cases.errors import Refused
from bench.workloads import own

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"```python\n# (\S+)\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(), re.DOTALL)
EXAMPLES: Dict[str, str] = dict(BLOCKS)
EXAMPLE = EXAMPLES["mine/test_gated.py"]
FAST = ("--steps=5",)
W16 = "gated-w16-inference-b4-fp32-x1-numpy-cpu"
# The least that a file of tests needs.
MODEL = """
from bench.cases.dimension import Dimension

ITEM = "row"
DIMENSIONS = {"width": Dimension("w", "width")}
SIZES = ({"width": 4},)


def build(net, *, width):
    return net.dense(net.input(width), width)


def test_mine(case, measure):
    measure(case)
"""


def with_example(suite: Suite) -> Suite:
    suite.add("mine/test_gated.py", EXAMPLE)
    suite.paths = ["mine"]
    return suite


@pytest.fixture(scope="module")
def mine(new_suite: Callable[[], Suite]) -> Suite:
    """A copy with the example of the documentation, in a folder of its own."""
    return with_example(new_suite())


@pytest.fixture
def own_file(suite: Suite) -> Suite:
    """The same, to be changed."""
    return with_example(suite)


def records(suite: Suite, name: str) -> List[Dict[str, Any]]:
    return [entry["extra_info"] for entry in suite.read(name)["benchmarks"]]


def collected(suite: Suite, *args: str) -> List[str]:
    result = suite.run("--collect-only", "-q", *args)
    assert result.returncode == 0, result.text
    return re.findall(r"::test_\w+\[(.+)\]", result.stdout)


def test_the_example_is_measured_and_checked_like_any_layer(mine: Suite) -> None:
    frameworks = [name for name in ("torch",) if importlib.util.find_spec(name)]

    result = mine.run(
        *FAST, "--backend", ",".join(["numpy", *frameworks]), "--mode=inference,training", "--benchmark-json=run.json"
    )

    assert result.returncode == 0, result.text
    found = {record["id"]: record for record in records(mine, "run.json")}
    trained = [f"gated-w16-training-b4-fp32-x1-{name}-cpu" for name in frameworks]
    untrained = [f"gated-w16-inference-b4-fp32-x1-{name}-cpu" for name in ("numpy", *frameworks)]
    assert sorted(found) == sorted([*trained, *untrained])
    for record in found.values():
        # 16 x 16 weights and 16 biases; 2 x 16 x 16 operations a row.
        passes = 3 if record["mode"] == "training" else 1
        assert (record["parameters"], record["flops_per_item"]) == (272, passes * 512)
        assert record["relative_error"] <= record["tolerance"]
        assert record["workload_file"] == "mine/test_gated.py"
    assert all(found[name]["gradient_error"] > 0 for name in trained)
    assert "layerbench: gated, w16" in result.stdout


def test_it_runs_beside_the_suite_and_obeys_the_options(mine: Suite) -> None:
    mine.paths = ["bench", "mine"]
    try:
        chosen = collected(mine, "-k", "gated or (dense and test_layer)", "--batch-size=1,3", "--precision=fp32,bf16")
        sizes = collected(mine, "--sizes=w256,u128")
        every = collected(mine, "-k", "gated", "--sizes=all")
    finally:
        mine.paths = ["mine"]

    assert [name for name in chosen if name.startswith("gated")] == [
        f"gated-w16-inference-b{batch}-{precision}-x1-numpy-cpu" for batch in (1, 3) for precision in ("fp32", "bf16")
    ]
    assert len(chosen) == 8
    assert [name.split("-")[:2] for name in sizes] == [["dense", "u128"], ["gated", "w256"]]
    assert [name.split("-")[1] for name in every] == ["w16", "w256"]


def test_a_size_that_no_workload_has_is_still_refused(mine: Suite) -> None:
    result = mine.run("--sizes=w17")

    assert result.returncode == 4, result.text
    assert "no size 'w17'; there are first, all, or names such as" in result.stderr
    assert "w16 (gated)" in result.stderr


def test_a_keyword_that_leaves_nothing_names_it_too(mine: Suite) -> None:
    result = mine.run("-k", "gatd")

    assert result.returncode == 4, result.text
    assert re.search(r"selects no case; the workloads are .*, gated$", result.stderr, re.MULTILINE)


def test_a_file_in_the_suite_s_folder_and_one_outside_the_checkout_work_alike(suite: Suite, tmp_path: Path) -> None:
    suite.add("bench/test_inside.py", MODEL)
    far = tmp_path / "far" / "test_outside.py"
    far.parent.mkdir()
    far.write_text(MODEL)
    suite.paths = ["bench", str(far)]

    result = suite.run(*FAST, "-k", "inside or outside", "-rA", "--benchmark-json=run.json")

    assert result.returncode == 0, result.text
    files = {record["workload"]: record["workload_file"] for record in records(suite, "run.json")}
    assert files == {"inside": "bench/test_inside.py", "outside": str(far)}


def test_a_model_of_another_module_and_the_suite_s_workloads_by_a_marker(suite: Suite) -> None:
    suite.add("mine/package/__init__.py", "")
    suite.add("mine/package/parts.py", "def wide(net, x, width):\n    return net.dense(x, width)\n")
    body = MODEL.partition("def test_mine")[0].replace("net.dense(", "wide(net, ")
    suite.add("mine/package/model.py", f"from .parts import wide\n{body}")
    suite.add(
        "mine/test_others.py",
        """
        import pytest
        from package import model

        @pytest.mark.workload(model, "dense")
        @pytest.mark.parametrize("again", [1, 2])
        def test_marked(case, measure, again):
            assert measure(case)["record"]["items_per_s"] > 0
        """,
    )
    suite.paths = ["mine"]

    result = suite.run(*FAST, "--units=8", "-rA")

    assert result.returncode == 0, result.text
    assert len(re.findall(r"^PASSED .*model-w4-inference-b1-fp32-x1-numpy-cpu", result.stdout, re.MULTILINE)) == 2
    assert len(re.findall(r"^PASSED .*dense-u8-inference-b32-fp32-x1-numpy-cpu", result.stdout, re.MULTILINE)) == 2


def test_two_results_of_one_case_make_no_baseline(suite: Suite) -> None:
    suite.add("mine/test_twice.py", MODEL + "\n\ndef test_again(case, measure):\n    measure(case)\n")
    suite.paths = ["mine"]

    result = suite.run(*FAST, "--baseline=./base.json", "--baseline-accept=why")

    assert result.returncode == 4, result.text
    assert len(result.errors) == 1
    assert "measure twice-w4-inference-b1-fp32-x1-numpy-cpu; select one" in result.errors[0]
    assert not (suite.root / "base.json").exists()


def test_workers_of_pytest_xdist_and_other_interpreters_have_it_too(own_file: Suite) -> None:
    pytest.importorskip("xdist")

    two = own_file.run(*FAST, *XDIST, "-n", "2", "--batch-size=1,2", "--benchmark-json=two.json")
    there = own_file.run(*FAST, f"--worker-host=popen//python={sys.executable}", "--benchmark-json=there.json")

    assert (two.returncode, there.returncode) == (0, 0), two.text + there.text
    assert own_file.ids("two.json") == [W16.replace("-b4-", f"-b{batch}-") for batch in (1, 2)]
    assert own_file.ids("there.json") == [W16]


@pytest.fixture(scope="module")
def accepted(new_suite: Callable[[], Suite]) -> Suite:
    """A copy with a baseline of the example's two sizes and of a layer."""
    suite = with_example(new_suite())
    suite.paths = ["bench", "mine"]
    result = suite.run(
        *("-k", "gated or (dense and test_layer)", "--sizes=all", "--steps=30", "--processes=1"),
        *("--baseline=./base.json", "--baseline-accept=why"),
    )
    assert result.returncode == 0, result.text
    suite.store("base.json")
    return suite


def test_a_baseline_holds_its_cases(accepted: Suite) -> None:
    """One has a millionth of its stored rate, the other what was stored."""
    accepted.add("faster.json", (accepted.root / "base.json").read_text())
    accepted.store("faster.json", 1e6, only=W16)

    result = accepted.run("-k", "gated", "--sizes=all", "--steps=30", "--baseline=faster.json", "--budget=99")

    assert result.returncode == 1, result.text
    assert f"{W16}: " in result.stdout
    assert re.search(r"-(99\.9|100).*% slower$", result.stdout, re.MULTILINE)
    assert len(re.findall("% same$", result.stdout, re.MULTILINE)) == 1


def test_a_case_is_lost_only_where_its_file_is_collected(accepted: Suite) -> None:
    args = ("--sizes=all", "--steps=3", "--baseline=base.json", "--budget=99", "--processes=1")
    accepted.paths = ["bench"]
    without = accepted.run("-k", "dense and test_layer", *args)
    accepted.add("mine/test_gated.py", EXAMPLE.replace('"width": 256', '"width": 128'))
    accepted.paths = ["bench", "mine"]
    shrunk = accepted.run("-k", "gated or (dense and test_layer)", *args)
    accepted.add("mine/test_gated.py", EXAMPLE)

    assert without.returncode == 0, without.text
    assert shrunk.returncode == 1, shrunk.text
    assert f"{W16.replace('w16', 'w256')} is in base.json and not in this run: lost or renamed" in shrunk.stdout


# What is changed in MODEL, and what the one line says.
BROKEN = {
    "no model at all": ("def test_mine(case, measure):\n    measure(case)\n", "`case` needs a workload: define ITEM,"),
    "something is missing": (re.sub(r"(?m)^(SIZES|ITEM) = .*$", "", MODEL), "ITEM, SIZES is missing"),
    "a size of no dimension": (MODEL.replace('{"width": 4}', '{"widht": 4}'), "'widht' in SIZES is no dimension"),
    "a size without a value": (MODEL.replace('{"width": 4}', "{}"), "'width' has no value in {} of SIZES"),
    "no sizes": (MODEL.replace('({"width": 4},)', "()"), "SIZES is a tuple of one or more dictionaries"),
    "dimensions of text": (MODEL.replace('Dimension("w", "width")', '"w"'), "DIMENSIONS is a dictionary of"),
    "a loss without a rate": (MODEL + "\n\ndef loss(net, y):\n    return net.mean(y)\n", "loss needs LEARNING_RATE"),
    "a build that fails": (MODEL.replace("net.dense", "net.dens"), "no attribute 'dens' (line 9)"),
    "a build of other arguments": (MODEL.replace("*, width", "*, units"), "unexpected keyword argument 'width'"),
    "a build that returns nothing": (MODEL.replace("return net", "net"), "build returned None"),
    "an unknown workload": (
        "import pytest\n\n\n@pytest.mark.workload('dens')\ndef test_mine(case, measure):\n    measure(case)\n",
        "@pytest.mark.workload: workload 'dens' (did you mean dense?)",
    ),
    "a marker of nothing": (
        "import pytest\n\n\n@pytest.mark.workload\ndef test_mine(case, measure):\n    measure(case)\n",
        "@pytest.mark.workload: it takes one or more workloads",
    ),
    "a marker of a number": (
        "import pytest\n\npytestmark = pytest.mark.workload(3)\n\n\ndef test_mine(case, measure):\n    measure(case)\n",
        "@pytest.mark.workload: 3 is neither a workload's name nor a module",
    ),
}


@pytest.fixture(scope="module")
def broken(new_suite: Callable[[], Suite]) -> Dict[str, Collected]:
    """What pytest says to each broken file, by its name in BROKEN."""
    suite = new_suite()
    files = {name: f"mine/test_mine{index}.py" for index, name in enumerate(BROKEN)}
    for name, file in files.items():
        suite.add(file, BROKEN[name][0])
    found = collect(suite, [(file,) for file in files.values()], paths=())
    return {name: found[(file,)] for name, file in files.items()}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_no_workload_is_one_line(broken: Dict[str, Collected], name: str) -> None:
    done = broken[name]

    assert done.returncode == 4, done.text
    (line,) = re.findall("^ERROR.*", done.text, re.MULTILINE)
    assert line.startswith(("ERROR: mine/test_mine", "ERROR: mine"))
    assert BROKEN[name][1] in line
    assert "Traceback" not in done.text


@pytest.fixture(scope="module")
def breaking(new_suite: Callable[[], Suite]) -> Suite:
    suite = new_suite()
    suite.paths = ["mine"]
    return suite


def test_a_name_of_the_suite_s_is_taken(breaking: Suite) -> None:
    breaking.add("mine/test_mine.py", MODEL)
    taken = breaking.add("mine/test_dense.py", MODEL)

    result = breaking.run()
    taken.unlink()

    assert result.returncode == 4, result.text
    assert result.errors == ["ERROR: mine/test_dense.py: the suite has a workload 'dense' of its own; rename the file"]


def test_a_broken_file_is_said_once_under_pytest_xdist(breaking: Suite) -> None:
    pytest.importorskip("xdist")
    breaking.add("mine/test_mine.py", BROKEN["something is missing"][0])

    result = breaking.run(*XDIST, "-n", "2", "--benchmark-json=run.json")

    assert not (breaking.root / "run.json").exists()
    assert result.returncode == 4, result.text
    assert result.text.count("ITEM, SIZES is missing") == 1


def test_a_file_that_loads_only_where_pytest_runs_fails_in_one_line(suite: Suite) -> None:
    guard = "import sys\n\nif 'pytest' not in sys.modules:\n    raise RuntimeError('not\\nhere')\n"
    suite.add("mine/test_mine.py", guard + MODEL)
    suite.paths = ["mine"]

    result = suite.run(*FAST)

    assert result.returncode == 1, result.text
    assert "mine/test_mine.py does not load in the worker: RuntimeError: not here (line 4)" in result.stdout
    assert "Traceback" not in result.text


def test_a_host_without_what_a_file_imports_says_which() -> None:
    told = {
        "module": "far.test_x",
        "file": "/far/test_x.py",
        "shown": "far/test_x.py",
        "folder": "/nowhere/at/all",
        "text": "\nimport no_such_module_x\n",
    }

    with pytest.raises(Refused) as refused:
        own.load(told)

    assert str(refused.value) == (
        "far/test_x.py does not load in the worker: ModuleNotFoundError: No module named 'no_such_module_x' (line 2)"
    )
    assert "far.test_x" not in sys.modules
    assert "/nowhere/at/all" not in sys.path


def test_tests_without_a_case_are_none_of_our_business(suite: Suite) -> None:
    suite.add("mine/test_plain.py", "def test_plain(tmp_path):\n    assert tmp_path.is_dir()\n")
    suite.paths = ["mine"]

    result = suite.run("-rA")

    assert result.returncode == 0, result.text
    assert "1 passed" in result.stdout


def test_a_test_measures_one_case(own_file: Suite) -> None:
    text = "\n\ndef test_two(case, measure):\n    measure(case)\n    measure(case)\n"
    own_file.add("mine/test_gated.py", EXAMPLE + text)

    result = own_file.run(*FAST, "-k", "two")

    assert result.returncode == 1, result.text
    assert "measure is for one case a test: pytest-benchmark keeps one result of each" in result.stdout
    assert "Traceback" not in result.text


def test_a_case_made_by_hand_has_the_samples_of_its_worker(suite: Suite) -> None:
    suite.add(
        "mine/test_hand.py",
        """
        from bench.cases.case import Case

        def test_hand(measure):
            measure(Case("dense", "u8", {"units": 8, "activation": "none"}, "inference", 3, "fp32", 1, "numpy", "cpu"))
        """,
    )
    suite.paths = ["mine"]

    result = suite.run("--steps=7", "--benchmark-json=run.json")

    assert result.returncode == 0, result.text
    (entry,) = suite.read("run.json")["benchmarks"]
    assert entry["extra_info"]["id"] == "dense-u8-inference-b3-fp32-x1-numpy-cpu"
    assert len(entry["stats"]["data"]) == 7
    assert entry["stats"]["median"] == pytest.approx(entry["extra_info"]["step_median_s"])
