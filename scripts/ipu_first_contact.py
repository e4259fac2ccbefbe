"""Run once on a machine with an IPU: small cases of every kind, and one archive to send back.

    python -m scripts.ipu_first_contact [--minutes 20] [--output FILE.tar.gz]

The smallest case of each backend comes first, then one of each kind. A kind that fails is not tried further with that
backend, and the next kind follows. The archive has the full output of every run, the records, the versions of the
software, and what gc-info says. Names of the user, of the machine and of folders, and addresses, are replaced.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import importlib.util
import io
import json
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from bench import backends  # noqa: E402
from bench.cache import write_whole  # noqa: E402
from bench.devices import ipu  # noqa: E402

MINUTES = 20.0
# Of one run, which compiles twice. The next kind is to get its turn.
LONGEST_S = 240.0
# Less than this, and no further run starts.
SHORTEST_S = 20.0
END_S = 15.0
MOST_BYTES = 5 << 20
# Of the output of one run; what is beyond it is cut out of the middle.
MOST_LOG_BYTES = 200 << 10
INTERRUPTED = 130

DENSE = "-k dense --units 16 --batch-size 2"
LSTM = "-k 'lstm and not lstm_multi' --hidden-size 16 --timesteps 4"
NETWORK = "--model resnet8 --batch-size 2"
# Arguments of the runs of each kind, in the order in which they run: what fails for most users comes first.
KINDS: Dict[str, Tuple[str, ...]] = {
    "smallest": (DENSE,),
    "recurrent": (
        LSTM,
        "-k gru --hidden-size 16 --input-size 16 --timesteps 4",
        "-k rnn --hidden-size 16 --timesteps 4",
    ),
    "convolution": (
        "-k 'conv and not grouped' --input-width 32 --input-height 32 --filter-out 16",
        "-k grouped_conv --input-size 16 --block-repeats 2",
    ),
    "training": (f"{DENSE} --mode training", f"{LSTM} --mode training"),
    "network": (NETWORK, f"{NETWORK} --mode training --gradient-accumulation 2 --batches-per-step 1"),
    "16 bits": (f"{DENSE} --precision fp16", f"{NETWORK} --precision fp16m --mode training --half-partial"),
    "host data": (f"{DENSE} --data generated",),
    "cycle count": (f"{DENSE} --cycle-count",),
    "memory": (f"{LSTM} --available-memory-proportion 0.2 --partials-type-matmul half",),
    "replicas": (f"{DENSE} --mode training --replicas 2",),
    "pipeline": (f"{NETWORK} --pipeline-splits layer2.0 --batches-per-step 8",),
    "recomputation": (f"{NETWORK} --mode training --recompute auto",),
    "profile": (f"{DENSE} --profile {{folder}}/profile",),
    "sampler": ("-k hmc --hmc-steps 4",),
}
MEASURED, SKIPPED, FAILED, TIMED_OUT, NOT_RUN = "measured", "skipped", "failed", "timed out", "not run"
STOPPING = (FAILED, TIMED_OUT)
# Whose versions are of use.
PACKAGES = (
    *("poptorch", "popart", "popdist", "tensorflow", "ipu-tensorflow", "ipu-tensorflow-addons", "keras", "ipu-keras"),
    *("torch", "numpy", "onnx", "protobuf", "pytest", "pytest-benchmark", "execnet", "rich"),
)
VARIABLES = ("POPLAR", "POPART", "POPTORCH", "POPDIST", "TF_POPLAR_FLAGS", "IPUOF", "GCDA", "LD_LIBRARY_PATH")
# Bounded, since logs have lines of a megabyte.
ADDRESSES = re.compile(
    r"\b(?:\d{1,3}\.){3}\d{1,3}\b|\b(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}\b|[\w.+-]{1,64}@[\w.-]{1,253}"
)
# Lines of gc-info about people and single boards.
PRIVATE = re.compile("user name|user executable|serial|uuid|hostname|host name|server name", re.IGNORECASE)


@dataclass(frozen=True)
class Outcome:
    """What became of a run. `reason` is the last line that says why it skipped or failed."""

    kind: str
    backend: str
    arguments: str
    result: str
    seconds: float = 0.0
    reason: str = ""


# Runs arguments within a number of seconds, and writes the JSON file. Returns the exit code (None: timed out) and the
# output.
Runner = Callable[[Sequence[str], float], Tuple[Optional[int], str]]


def contact(
    names: Sequence[str], run: Runner, seconds: float, told: Callable[[str], None], folder: Path
) -> Iterator[Outcome]:
    """Run every kind with every backend until the time is over, and write the output of each run into a folder.

    The first run of each kind comes before the second of any.
    """
    end, stopped = time.monotonic() + seconds, set()
    for kind, backend, index in ordered(names):
        left_s, arguments = end - time.monotonic(), KINDS[kind][index]
        if (kind, backend) in stopped:
            continue
        if left_s < SHORTEST_S:
            yield Outcome(kind, backend, arguments, NOT_RUN, reason="the time is over")
            continue
        told(f"{kind}, {backend}: {arguments} ({left_s / 60:.0f} min left)")
        name = f"{kind.replace(' ', '_')}-{index + 1}-{backend}"
        outcome = _one(kind, backend, arguments, run, min(left_s, LONGEST_S), folder / name)
        told(f"    {outcome.result} after {outcome.seconds:.0f} s {outcome.reason}".rstrip())
        if outcome.result in STOPPING:
            stopped.add((kind, backend))
        yield outcome


def ordered(names: Sequence[str]) -> List[Tuple[str, str, int]]:
    """Kind, backend and index of every run, in order."""
    most = max(len(runs) for runs in KINDS.values())
    return [
        (kind, name, index)
        for index in range(most)
        for kind, runs in KINDS.items()
        if index < len(runs)
        for name in names
    ]


def _one(kind: str, backend: str, arguments: str, run: Runner, limit_s: float, path: Path) -> Outcome:
    """One run. Its output and records are `path` with .log and .json."""
    start = time.monotonic()
    own = shlex.split(arguments.format(folder=path.parent))
    line = ["bench", "--device", "ipu", "--backend", backend, *own, "--benchmark-only", "-rA"]
    code, output = run([*line, f"--benchmark-json={path}.json"], limit_s)
    passed_s = time.monotonic() - start
    path.with_suffix(".log").write_text(output)
    outcome, reason = result(code, output)
    return Outcome(kind, backend, arguments, outcome, passed_s, reason)


def result(code: Optional[int], output: str) -> Tuple[str, str]:
    """What became of a run, by its exit code and output, and the line that says why."""
    lines = output.splitlines()
    if code is None:
        return TIMED_OUT, next((line.strip() for line in reversed(lines) if line.strip()), "")
    if code == 0:
        if re.search(r"\b[1-9]\d* passed\b", lines[-1] if lines else ""):
            return MEASURED, ""
        reasons = [line for line in lines if line.startswith("SKIPPED")]
        return SKIPPED, reasons[-1] if reasons else "no case was selected"
    errors = [line for line in lines if line.startswith(("E  ", "ERROR", "FAILED"))]
    return FAILED, errors[-1] if errors else f"exit code {code}"


def as_process(arguments: Sequence[str], limit_s: float) -> Tuple[Optional[int], str]:
    """Run pytest in a process of its own, with all that it starts in its group."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        with subprocess.Popen(
            command,
            cwd=str(ROOT),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            try:
                code: Optional[int] = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                code = None
                _end(process)
            except BaseException:
                _end(process)
                raise
        output.seek(0)
        return code, output.read()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a run: first as Ctrl-C does, so that it releases its device."""
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(END_S)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def facts(names: Sequence[str]) -> Dict[str, Any]:
    """The machine, the versions of its software, and the variables of the SDK."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "backends": list(names),
        "python": sys.version,
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "versions": versions,
        "variables": {name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)},
        "commit": _commit(),
    }


def _commit() -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    return done.stdout.decode().strip()


def devices() -> str:
    """What gc-info says of all devices and of the first one, without lines about people and single boards."""
    said = "\n".join(ipu._run("gc-info", *arguments) for arguments in (["-l"], ["-d", "0", "-i"], ["--version"]))
    return "\n".join(line for line in said.splitlines() if not PRIVATE.search(line))


def cleaned(text: str, secrets: Mapping[str, str]) -> str:
    """A text without names of people, machines and folders, and without addresses."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])", secrets[secret], text)
    return ADDRESSES.sub("ADDRESS", text)


def secrets() -> Dict[str, str]:
    """What is replaced in the archive, and by what."""
    found = {str(ROOT): "SUITE", sys.prefix: "PYTHON", str(Path.home()): "HOME", tempfile.gettempdir(): "TMP"}
    with contextlib.suppress(KeyError, OSError):
        found[getpass.getuser()] = "USER"
    found[platform.node()] = "MACHINE"
    # Short names would be replaced in the middle of sentences; root says nothing of anybody.
    return {secret: name for secret, name in found.items() if len(secret) > 2 and secret not in ("root", "/tmp")}


def shortened(text: str, most: int) -> str:
    """A text of at most about so many bytes: its beginning and its end."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}\n... {len(text) - most} characters left out ...\n{text[-most // 2 :]}"


def archive(files: Mapping[str, str]) -> bytes:
    """A compressed archive of texts, of at most MOST_BYTES: the longest are shortened until it fits."""
    most = MOST_LOG_BYTES
    while True:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for name, text in files.items():
                data = shortened(text, most).encode()
                entry = tarfile.TarInfo(f"ipu_first_contact/{name}")
                entry.size, entry.mtime = len(data), int(time.time())
                tar.addfile(entry, io.BytesIO(data))
        if buffer.tell() <= MOST_BYTES or most < 100:
            return buffer.getvalue()
        most //= 2


def collected(folder: Path, outcomes: Sequence[Outcome], names: Sequence[str]) -> Dict[str, str]:
    """The texts of the archive, by name."""
    texts = {
        "outcomes.json": json.dumps([asdict(outcome) for outcome in outcomes], indent=1),
        "facts.json": json.dumps(facts(names), indent=1),
        "devices.txt": devices(),
    }
    texts.update({path.name: path.read_text(errors="replace") for path in sorted(folder.glob("*.*"))})
    hidden = secrets()
    return {name: cleaned(text, hidden) for name, text in texts.items()}


def table(outcomes: Sequence[Outcome], names: Sequence[str]) -> str:
    """A line for each kind: what became of it with each backend."""
    lines = [f"{'':14}{''.join(f'{name:>16}' for name in names)}"]
    for kind in KINDS:
        cells = []
        for name in names:
            results = [outcome.result for outcome in outcomes if (outcome.kind, outcome.backend) == (kind, name)]
            worst = next(
                (each for each in (*STOPPING, NOT_RUN, SKIPPED) if each in results), results[-1] if results else NOT_RUN
            )
            cells.append(f"{worst:>16}")
        lines.append(f"{kind:14}{''.join(cells)}")
    return "\n".join(lines)


def _told(text: str) -> None:
    print(text, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.ipu_first_contact",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help="start no run after this time (default: %(default)g)"
    )
    parser.add_argument("--output", type=Path, default=Path("ipu_first_contact.tar.gz"), help="(default: %(default)s)")
    return parser


def main(arguments: Optional[Sequence[str]] = None, run: Runner = as_process) -> int:
    """Returns the exit code: 0 if nothing failed, 1 if something did or there is no IPU, 130 after Ctrl-C."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if not 0 < given.minutes < 1e4:
        parser.error(f"--minutes {given.minutes:g}: a number of minutes above 0")
    if not given.output.resolve().parent.is_dir():
        parser.error(f"--output {given.output}: there is no folder {given.output.resolve().parent}")
    missing = ipu.absent()
    names = [name for name in ipu.BACKENDS if importlib.util.find_spec(backends.load(name).package)]
    if missing or not names:
        _told(missing or f"none of {', '.join(ipu.BACKENDS)} is installed here: {ipu.SOURCE}")
        return 1
    outcomes: List[Outcome] = []
    code = 0
    with tempfile.TemporaryDirectory() as folder:
        try:
            for outcome in contact(names, run, 60 * given.minutes, _told, Path(folder)):
                outcomes.append(outcome)
        except KeyboardInterrupt:
            code = INTERRUPTED
            _told("interrupted: the archive has what has run")
        data = archive(collected(Path(folder), outcomes, names))
        write_whole(given.output, data)
    _told(f"\n{table(outcomes, names)}\n")
    _told(f"Please send {given.output} ({len(data) / 1000:.0f} kB) to the people who maintain this suite. It has the")
    _told(
        "output and records of these runs, versions, and what gc-info says; no names, no addresses. Look into it first."
    )
    return code or int(any(outcome.result in STOPPING for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
