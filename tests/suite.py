"""A copy of the suite in a folder of its own, run the way a user runs it: as a process, from its root."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import inspect
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import forking
import pytest
from pytest_benchmark import plugin

from bench import calibration, environment
from bench.cases.precision import PRECISIONS
from bench.clock import roofline
from bench.clock.canary import KINDS
from bench.devices import cpu

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("bench", "fixtures", "conftest.py", "pytest.ini")
# pytest-benchmark 4 opens the file of --benchmark-json while it parses: what was there is gone by then.
EMPTIES_JSON = "FileType" in inspect.getsource(plugin.pytest_addoption)
SMALL = ("-k", "dense", "--units", "8")
XDIST = ("-p", "xdist.plugin", "-p", "xdist.looponfail")
TWO = (*XDIST, "-n", "2", "--benchmark-only")
PLUGINS = ("-p", "pytest_benchmark.plugin", "-p", "no:cacheprovider")
TIMEOUT_S = 240.0

# What a CI service, an outer pytest or a user's shell would otherwise change in the run under test.
FOREIGN = ("CI", "BUILD_", "GITHUB_", "GITLAB_", "PYTEST_", "COV_", "LAYERBENCH_", "PYTHONPATH", "POPLAR_", "COLUMNS")

BACKEND = '''
"""numpy, with a difference."""

import os
import signal
import sys
import time
from pathlib import Path

from bench.backends import numpy as sound
from bench.backends.numpy import DEVICES, MODES, environment, unsupported, version

PACKAGE = "numpy"


def compile(graph, weights, inputs, case, settings):
    program = sound.compile(graph, weights, inputs, case, settings)
    run, outputs = program.run_resident, program.outputs
    with (Path(__file__).parents[2] / "workers.txt").open("a") as file:
        file.write(f"{case.id} {os.getpid()}\\n")
%s
    return program
'''

# A step that takes `seconds`, however busy the machine is.
PACED = """
def paced():
    end = time.perf_counter() + {seconds}
    run()
    time.sleep(max(0.0, end - time.perf_counter()))
program.run_resident = paced
"""

# Results that are right ten times, and wrong later.
TIRES = """
calls = []
def tiring():
    run()
    calls.append(0)
    if len(calls) > 10:
        program.results = {"output": 1.01 * program.results["output"]}
program.run_resident = tiring
"""

# What takes long to import, by backend. Images for other backends than TensorFlow are decoded with torch.
LOADS = {
    "torch": ("torch", "torch.utils.data", "PIL.Image"),
    "onnxruntime": ("torch", "torch.utils.data", "PIL.Image", "onnx", "onnxruntime"),
    "tensorflow": ("tensorflow",),
    "jax": ("jax", "torch", "torch.utils.data", "PIL.Image"),
}
# With what workers start that load them.
QUIET = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}

# Constants of modules of bench/ that copies have otherwise: a busy neighbour must not decide a test, and a pair of
# processes is to be short. So no canary needs quiet cores, and a new device is calibrated at once.
CHANGED = (
    ("clock/canary", "DISTURBED", "1e6"),
    ("clock/neighbours", "MOST_PERCENT", "1e6"),
    ("clock/conditions", "STOLEN_PERCENT", "1e6"),
    ("clock/conditions", "OTHERS_PERCENT", "1e6"),
    ("clock/conditions", "DRIFT_PERCENT", "1e6"),
    ("clock/conditions", "WANDERING_PERCENT", "1e6"),
    ("processes/pairing", "FEWEST_UNITS, MOST_UNITS", "1, 12"),
    ("clock/surroundings", "SETTLE_S", "0.0"),
    ("clock/canary", "ROUNDS", "5"),
    ("clock/roofline", "LEVELS", "(1 << 18, 1 << 22)"),
    ("calibration", "SIDES", "(512, 1024)"),
    ("calibration", "SECONDS_A_KERNEL", "0.001"),
)

# Runs of any copy, by the variables that Python reads when a process starts.
FORKS: Dict[Tuple[Tuple[str, str], ...], forking.Forks] = {}


def case_id(backend: str, batch_size: int) -> str:
    """The one case of SMALL."""
    return f"dense-u8-inference-b{batch_size}-fp32-x1-{backend}-cpu"


@dataclass(frozen=True)
class Result:
    """What a run left: `text` is all that it printed."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout + self.stderr

    @property
    def errors(self) -> List[str]:
        """The lines that start with ERROR."""
        return [line for line in self.text.splitlines() if line.startswith("ERROR")]

    def outcomes(self) -> Dict[str, str]:
        """PASSED, FAILED, SKIPPED or ERROR by item, of a run with -rA or -v: the last word said."""
        found = {}
        for line in self.stdout.splitlines():
            word, _, rest = line.partition(" ")
            if word in ("PASSED", "FAILED", "ERROR") and rest:
                name = rest.split(" - ")[0].split("::")[-1]
                found[name[name.find("[") + 1 :].rstrip("]")] = word
        return found


class Suite:
    """The copy under `root`; runs share `cache`. A copy of another copy, `source`, has its bytecode too."""

    def __init__(self, root: Path, cache: Path, source: Path = ROOT) -> None:
        self.root, self.cache = root, cache
        self._forks: Optional[forking.Forks] = None
        # What pytest is to collect.
        self.paths = ["bench"]
        root.mkdir(parents=True, exist_ok=True)
        for name in PARTS:
            if (source / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__") if source == ROOT else None
                shutil.copytree(str(source / name), str(root / name), ignore=ignored)
            else:
                shutil.copy2(str(source / name), str(root / name))
        for part, names, values in CHANGED:
            path = root / "bench" / f"{part}.py"
            before = path.read_text()
            assert f"\n{names} = " in before, (part, names)
            after = re.sub(rf"^{names} = .*$", f"{names} = {values}", before, flags=re.MULTILINE)
            # A file that is written again has stale bytecode, and every process would compile it.
            if after != before:
                path.write_text(after)

    def run(self, *args: str, **env: str) -> Result:
        """`pytest` of `paths` with these arguments; `--backend numpy` and a short time budget unless given."""
        arguments, forks = [*self.paths, *defaults(args), *args], self._forks
        early = tuple(sorted(item for item in env.items() if item[0].startswith(forking.AT_START)))
        if forks is None or early:
            if early not in FORKS:
                FORKS[early] = forking.Forks(list(PLUGINS), {**self._environment(), **dict(early)})
            forks = FORKS[early]
        loads = _imports(args) if self._forks is not None and "--in-process" in args else []
        return Result(*forks.run(arguments, self.root, self._variables(args, env), int(TIMEOUT_S), loads))

    def run_together(self, args: Sequence[str], envs: Sequence[Dict[str, str]], timeout_s: float) -> List[Result]:
        """Runs at once, one in each environment, which compute in their own processes. The suite is `loaded`."""
        assert self._forks is not None
        arguments = [*self.paths, *defaults(args), *args]
        runs = [(arguments, self._variables(args, env)) for env in envs]
        found = self._forks.run_together(runs, self.root, int(timeout_s), _imports(args))
        return [Result(*one) for one in found]

    @contextlib.contextmanager
    def loaded(self) -> Iterator[None]:
        """Let runs be forks of a process that has loaded this copy as well: its code is not to change.

        Those by --in-process have the frameworks of their backends too.
        """
        self._forks = forking.Forks([*self.paths, *defaults(())], {**self._environment(), **QUIET}, self.root)
        yield
        self._forks.close()
        self._forks = None

    def start(self, *args: str, **env: str) -> subprocess.Popen[str]:
        """The same, not waited for, in a session of its own as under a terminal of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", *self.paths, *defaults(args), *args],
            cwd=str(self.root),
            env=self._variables(args, env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # A shell's background jobs ignore Ctrl-C, and so would their children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def add(self, path: str, text: str) -> Path:
        """Write a file into the copy."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(textwrap.dedent(text).lstrip("\n"))
        return target

    def add_backend(self, name: str, change: str = "") -> None:
        """A backend that is numpy but for `change`: statements that may replace `program.run_resident`
        (`run` before) and `program.outputs` (`outputs` before). It notes the case and pid of every compile."""
        body = textwrap.indent(textwrap.dedent(change).strip("\n"), "    ")
        self.add(f"bench/backends/{name}.py", BACKEND % body)

    def read(self, name: str) -> Any:
        return json.loads((self.root / name).read_text())

    def store(self, name: str, factor: float = 1.0, only: str = "", **changed: Any) -> None:
        """Give the records of a file twelve processes on four occasions, of `factor` times their rate.

        only      the id of the one record; empty: all records
        changed   other fields of these records
        """
        content = self.read(name)
        for entry in content["benchmarks"]:
            record = entry["extra_info"]
            if only in ("", record["id"]):
                rate = factor * record["items_per_s"]
                record["processes"] = [
                    {"started_s": 1e9 + 9000.0 * (index % 4), "items_per_s": rate * (1 + index / 1e4)}
                    for index in range(12)
                ]
                record.update(changed)
        self.add(name, json.dumps(content))

    def ids(self, name: str) -> List[str]:
        """The ids of the records in a file, in order."""
        return [entry["extra_info"]["id"] for entry in self.read(name)["benchmarks"]]

    def workers(self) -> Dict[str, List[int]]:
        """The pids that compiled each case, of backends made by `add_backend`."""
        found: Dict[str, List[int]] = {}
        notes = self.root / "workers.txt"
        for line in notes.read_text().splitlines() if notes.exists() else []:
            name, pid = line.split()
            found.setdefault(name, []).append(int(pid))
        return found

    def digests(self) -> Dict[str, str]:
        """Every file of the copy that a run may write, by path."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            inside = path.relative_to(self.root)
            if path.is_file() and inside.parts[0] not in PARTS and path.name != ".lock":
                found[str(inside)] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    def _variables(self, args: Sequence[str], env: Dict[str, str]) -> Dict[str, str]:
        """The environment of a run. Hosts keep bytecode of the code that they get: nothing rewrites it, and each of
        their workers would compile it."""
        hosts = any(arg.startswith(("--against", "--worker-host")) for arg in args)
        return {**self._environment(), **({"PYTHONDONTWRITEBYTECODE": ""} if hosts else {}), **env}

    def _environment(self) -> Dict[str, str]:
        # Frameworks that a test has imported set variables too, which runs would record.
        foreign = (*FOREIGN, *(prefix for prefix in environment.PREFIXES if prefix != "OPENBLAS_"))
        mine = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        # No plugin but the one we build on; and no new bytecode, since tests rewrite files within one second. Where the
        # runs under test share pytest's folder with the tests, they delete what earlier sessions of the tests left
        # there, which takes up to ten seconds.
        return {
            **mine,
            "LAYERBENCH_CACHE": str(self.cache),
            "PYTEST_DEBUG_TEMPROOT": str(self.root.parent),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }


def _imports(args: Sequence[str]) -> List[str]:
    """What a run that computes in its own process imports, by its backends."""
    backends = [name for arg in args if arg.startswith("--backend=") for name in arg.partition("=")[2].split(",")]
    # Optimisers of torch load its compiler.
    trains = "torch" in backends and "--mode=training" in args
    return [*(module for name in backends for module in LOADS.get(name, ())), *(["torch._dynamo"] if trains else [])]


def needs(*packages: str) -> None:
    """Skip what needs a package that is not installed. Unlike pytest.importorskip it imports none: TensorFlow takes
    seconds, and a run has processes of its own."""
    for name in packages:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed", allow_module_level=True)


def finished(process: subprocess.Popen[str], timeout_s: float = TIMEOUT_S) -> Result:
    """Wait for a run, and end it when it takes too long."""
    try:
        stdout, stderr = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        raise AssertionError(f"no end after {timeout_s} s\n{stdout}\n{stderr}") from None
    return Result(process.returncode, stdout, stderr)


def calibrate(cache: Path) -> None:
    """Keep a calibration of this machine that no case is above: measuring one takes time."""
    libraries = {calibration._versioned(name): [time.time()] for name in calibration._libraries("cpu")}
    peak = {
        "flops": 1e13,
        "bandwidth_bytes_per_s": {str(size): 1e12 for size in roofline.LEVELS},
        "sources": {"flops": "paper 1.0"},
        "libraries": libraries,
        "clock_hz": 1e10,
    }
    cache.mkdir(parents=True, exist_ok=True)
    cores = cpu.usable_cores()
    bound = [[], cores, *([core] for core in cores)]
    for threads, where in itertools.product((1, 2, 4), bound):
        (cache / f"{calibration._canary_name(threads, where)}.json").write_text(json.dumps(dict.fromkeys(KINDS, 10.0)))
        for precision in PRECISIONS:
            name = calibration._name("cpu", precision, threads, where)
            (cache / f"{name}.json").write_text(json.dumps(peak))


def until(condition: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    """Poll until `condition` holds and return what it returned; AssertionError after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    state: Optional[str] = None
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def defaults(args: Any) -> List[str]:
    given = {arg.split("=")[0] for arg in args}
    found = [*PLUGINS]
    if "--backend" not in given:
        found += ["--backend", "numpy"]
    if "--benchmark-max-time" not in given:
        found.append("--benchmark-max-time=0.05")
    return found
