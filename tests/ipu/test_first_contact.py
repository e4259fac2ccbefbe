"""The first contact with an IPU: which runs are made, what stops them, and what the archive has."""

from __future__ import annotations

import json
import os
import platform
import tarfile
from pathlib import Path

import pytest
from collecting import collect
from ipu_fakes import FAKES, TOOLS_PATH
from suite import alive, until

from bench.devices import ipu
from scripts import ipu_first_contact as contact

PASSED = (0, "collected 1 item\n=========== 1 passed in 1.00s ===========\n")
SKIPPED = (0, "SKIPPED [1] bench/test_layers.py:4: not supported: x\n=========== 1 skipped in 1.00s ===========\n")
NATIVE = "poplar::graph_memory_allocation_error: Out of memory on tile 7"
BROKEN = (1, f"{NATIVE}\nE   out of memory on the IPU\n=========== 1 failed in 1.00s ===========\n")


class Runs:
    """Answers by a part of a command; every other run passes. Notes the commands."""

    def __init__(self, **answers):
        self.answers, self.made = answers, []

    def __call__(self, arguments, limit_s):
        line = " ".join(arguments)
        self.made.append(line)
        answer = next((answer for part, answer in self.answers.items() if part in line), PASSED)
        if isinstance(answer, BaseException):
            raise answer
        return answer


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with the fakes' gc-info, and all three backends. Returns the path of the archive."""
    monkeypatch.setattr(ipu, "absent", lambda: None)
    monkeypatch.setattr(contact.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setenv("PATH", TOOLS_PATH)
    return tmp_path / "archive.tar.gz"


def outcomes(path):
    return json.loads(texts(path)["outcomes.json"])


def texts(path):
    with tarfile.open(path) as tar:
        return {Path(name).name: tar.extractfile(name).read().decode() for name in tar.getnames()}


def test_the_smallest_case_of_each_backend_is_first_and_no_kind_has_its_second_run_before_all_had_one():
    order = contact.ordered(["a", "b"])

    assert order[:2] == [("smallest", "a", 0), ("smallest", "b", 0)]
    assert [index for _, _, index in order] == sorted(index for _, _, index in order)
    assert len(order) == 2 * sum(map(len, contact.KINDS.values()))


def test_every_run_selects_one_case(new_suite):
    lines = {
        arguments: ("--device", "ipu", "--backend", "poptorch", *contact.shlex.split(arguments))
        for runs in contact.KINDS.values()
        for arguments in runs
    }

    found = collect(new_suite(), lines.values())

    assert {name: len(found[line].ids) for name, line in lines.items()} == dict.fromkeys(lines, 1)


def test_a_kind_that_failed_is_not_tried_further_with_that_backend(machine):
    runs = Runs(**{"--backend poptorch -k lstm and": BROKEN})

    assert contact.main(["--output", str(machine)], runs) == 1

    after = [line.split("--backend ")[1].split()[0] for line in runs.made if "-k gru" in line or "-k rnn" in line]
    assert sorted(after) == ["popart", "popart", "tensorflow_ipu", "tensorflow_ipu"]
    failed = [one for one in outcomes(machine) if one["result"] == "failed"]
    assert {(one["kind"], one["backend"]) for one in failed} >= {("recurrent", "poptorch")}
    assert {one["reason"] for one in failed} == {"E   out of memory on the IPU"}


def test_the_full_native_error_is_in_the_archive(machine):
    contact.main(
        ["--output", str(machine)], Runs(**{"poptorch -k dense --units 16 --batch-size 2 --benchmark": BROKEN})
    )

    assert NATIVE in texts(machine)["smallest-1-poptorch.log"]


def test_a_run_that_takes_too_long_ends_its_kind_and_the_next_follows(machine):
    runs = Runs(**{"-k gru": (None, "compiling\n")})

    assert contact.main(["--output", str(machine)], runs) == 1

    assert not any("-k rnn" in line for line in runs.made)
    assert any("-k hmc" in line for line in runs.made)
    assert {one["reason"] for one in outcomes(machine) if one["result"] == "timed out"} == {"compiling"}


def test_what_skips_is_no_failure_and_says_why(machine):
    assert contact.main(["--output", str(machine)], Runs(**{"--replicas": SKIPPED})) == 0

    skipped = {one["reason"] for one in outcomes(machine) if one["result"] == "skipped"}
    assert skipped == {"SKIPPED [1] bench/test_layers.py:4: not supported: x"}


def test_after_the_time_no_run_starts_and_the_rest_is_named(machine):
    runs = Runs()

    contact.main(["--output", str(machine), "--minutes", "0.01"], runs)

    assert runs.made == []
    assert {one["result"] for one in outcomes(machine)} == {"not run"}


def test_ctrl_c_keeps_what_has_run(machine):
    assert contact.main(["--output", str(machine)], Runs(**{"-k gru": KeyboardInterrupt()})) == 130

    assert {one["result"] for one in outcomes(machine)} == {"measured"}


@pytest.mark.parametrize(
    "missing, said", [("no IPU; gc-info -l lists none", "gc-info -l lists none"), (None, "none of")]
)
def test_without_an_ipu_or_a_framework_nothing_is_run_or_written(machine, monkeypatch, capsys, missing, said):
    monkeypatch.setattr(ipu, "absent", lambda: missing)
    monkeypatch.setattr(contact.importlib.util, "find_spec", lambda name: None)
    runs = Runs()

    assert contact.main(["--output", str(machine)], runs) == 1

    printed = capsys.readouterr().out
    assert said in printed
    assert printed.count("\n") == 1
    assert runs.made == []
    assert not machine.exists()


@pytest.mark.parametrize("arguments", [["--minutes", "0"], ["--minutes", "nan"], ["--output", "/no/such/folder/x"]])
def test_a_wrong_option_is_one_line(machine, capsys, arguments):
    with pytest.raises(SystemExit):
        contact.main(arguments, Runs())

    assert arguments[0] in capsys.readouterr().err.splitlines()[-1]


def test_the_archive_names_no_person_machine_or_folder(machine, monkeypatch):
    monkeypatch.setattr(contact.getpass, "getuser", lambda: "jane_doe")
    monkeypatch.setattr(contact.platform, "node", lambda: "secret-host-7")
    where = f"jane_doe@secret-host-7 {contact.ROOT}/bench {Path.home()}/x"
    said = f"{where} 10.1.2.3 jane@example.org 00:1a:2b:3c:4d:5e\n"
    monkeypatch.setattr(
        ipu, "_run", lambda *arguments: "  user name: jane_doe\n  board serial: 123\n  clock: 1330MHz\n"
    )

    contact.main(["--output", str(machine)], Runs(**{"": (0, said + PASSED[1])}))

    found = texts(machine)
    for secret in ("jane", "secret-host", str(contact.ROOT), "10.1.2.3", "example.org", "4d:5e", "serial"):
        assert not [name for name, text in found.items() if secret in text], secret
    assert "clock: 1330MHz" in found["devices.txt"]
    assert platform.python_version() in found["facts.json"]


def test_long_outputs_are_cut_in_their_middle_until_the_archive_is_small_enough(machine, monkeypatch):
    """Some 70 runs print 8 kB each that do not compress, for 100 kB."""
    noise = os.urandom(4000).hex()
    monkeypatch.setattr(contact, "MOST_BYTES", 100_000)
    monkeypatch.setattr(contact, "KINDS", dict(list(contact.KINDS.items())[:8]))

    contact.main(["--output", str(machine)], lambda *_: (0, os.urandom(4000).hex() + noise + "\nthe end\n" + PASSED[1]))

    assert machine.stat().st_size <= 100_000
    assert "characters left out" in texts(machine)["smallest-1-poptorch.log"]
    assert "the end" in texts(machine)["smallest-1-poptorch.log"]


@pytest.mark.runs
def test_a_fault_of_the_sdk_is_found_and_reported(monkeypatch, tmp_path):
    """On the fakes, in a process: the error of PopTorch is what the outcome says."""
    pytest.importorskip("torch")
    fault = {"poptorch.PoplarExecutor.__call__": {"exception": "poptorch.Error", "message": "tile 7 has no memory"}}
    # pytest-benchmark measures nothing in a process that pytest-xdist says is its own.
    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "PYTHONPATH": str(FAKES),
        "PATH": TOOLS_PATH,
        "POPLAR_SDK_ENABLED": "/opt/fake",
        "LAYERBENCH_CACHE": str(tmp_path / "cache"),
        "FAKE_IPU_FAULTS": json.dumps(fault),
    }.items():
        monkeypatch.setenv(name, value)

    outcome = contact._one("smallest", "poptorch", contact.DENSE, contact.as_process, 240.0, tmp_path / "smallest")

    assert outcome.result == "failed", (tmp_path / "smallest.log").read_text()
    assert "tile 7 has no memory" in (tmp_path / "smallest.log").read_text()


def test_a_run_that_hangs_is_ended_with_all_that_it_started(monkeypatch, tmp_path):
    """The run starts a child, and both ignore Ctrl-C."""
    monkeypatch.setattr(contact, "END_S", 0.5)
    script = tmp_path / "test_hang.py"
    script.write_text(
        "import signal, subprocess, sys, time\n"
        "def test_hang():\n"
        "    signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "    stubborn = 'import signal, time; signal.signal(2, 1); time.sleep(60)'\n"
        "    child = subprocess.Popen([sys.executable, '-c', stubborn])\n"
        f"    open({str(tmp_path / 'pids')!r}, 'w').write(str(child.pid))\n"
        "    time.sleep(60)\n"
    )

    code, _ = contact.as_process([str(script), "-p", "no:conftest", "--noconftest", "-c", os.devnull], 6.0)

    assert code is None
    pid = int((tmp_path / "pids").read_text())
    until(lambda: not alive(pid))
