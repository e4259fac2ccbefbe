"""What is broken in a set of images: named in one line, or left out and counted, and nothing hangs."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import broken_sets
import picture_sets as sets_of
import pytest
from test_image_pipelines import PIPELINES, asker, thorough_unless

pytest.importorskip("PIL")
pytest.importorskip("google_crc32c")

OUT = "leave such images out by --data-errors skip"
RAISE = f"give more by --classes, or {OUT}"
# By format and name: what the line says, and how many images `skip` leaves out of eight. The broken one
# is the fourth; shards hold four each, 0 2 4 6 and 1 3 5 7, so it is the second of the second.
FAULTS = {
    "folder": {
        "no image": ("class3/003.jpg: not a JPEG or PNG image", 1),
        "cut off": ("class3/003.jpg: damaged: image file is truncated", 1),
        "empty": ("class3/003.jpg: empty", 1),
        "huge PNG": ("class3/003.png: 9000 x 9000 pixels; at most 67108864 are allowed", 1),
        "huge JPEG": ("class3/003.jpg: more than the 67108864 pixels allowed", 1),
        "damaged PNG": ("class3/003.png: damaged: ", 1),
        "unreadable": ("class3/003.jpg: cannot be read: Input/output error", 1),
        "link to nowhere": ("class3/003.jpg: cannot be read: No such file or directory", 1),
        "folder of that name": ("class3/003.jpg: cannot be read: Is a directory", 1),
    },
    "tfrecord": {
        "no image": ("00001-of-00002, record 1: not a JPEG or PNG image", 1),
        "cut off": ("00001-of-00002, record 1: damaged: image file is truncated", 1),
        "empty": ("00001-of-00002, record 1: empty", 1),
        "huge PNG": ("00001-of-00002, record 1: 9000 x 9000 pixels; at most 67108864 are allowed", 1),
        "label too great": (f"00001-of-00002, record 1: label 10; with 8 classes the last is 8; {RAISE}", 1),
        "label below 0": (f"00001-of-00002, record 1: label -1; the first is 1; {OUT}", 1),
        "no label": ("00001-of-00002, record 1: no image/class/label", 1),
        "no image key": ("00001-of-00002, record 1: no image/encoded", 1),
        "no example": ("00001-of-00002, record 1: no tf.train.Example", 1),
        "two labels": ("00001-of-00002, record 1: 2 values in image/class/label; one is allowed", 1),
        "label of bytes": ("00001-of-00002, record 1: image/class/label is not an integer", 1),
        "checksum": ("00001-of-00002, record 1: its checksum is wrong; it is damaged", 1),
        "length": ("00001-of-00002, record 1: its length is damaged", 1),
        "file cut off": ("00001-of-00002, record 3: cut off at byte", 1),
        "empty file": ("00001-of-00002: holds no images; write it again, or leave it out by --data-errors skip", 1),
        "unreadable": ("00001-of-00002: cannot be read: No such file or directory", 1),
    },
    "webdataset": {
        "no image": ("part-001.tar, key 0003: not a JPEG or PNG image", 1),
        "cut off": ("part-001.tar, key 0003: damaged: image file is truncated", 1),
        "empty": ("part-001.tar, key 0003: empty", 1),
        "huge PNG": ("part-001.tar, key 0003: 9000 x 9000 pixels; at most 67108864 are allowed", 1),
        "label too great": (f"part-001.tar, key 0003: label 9; with 8 classes the last is 7; {RAISE}", 1),
        "label below 0": (f"part-001.tar, key 0003: label -1; the first is 0; {OUT}", 1),
        "no label": ("part-001.tar, key 0003: an image without a label (0003.cls)", 1),
        "label alone": ("part-001.tar, key 0003: a label (0003.cls) without an image", 1),
        "label no number": ("part-001.tar, key 0003: its label is b'cat', not a number", 1),
        "twice": ("part-001.tar, key 0003: two labels (0003.cls)", 1),
        "header": ("part-001.tar: no tar, or damaged, at byte", 1),
        "file cut off": ("part-001.tar: cut off at byte", 1),
        "empty file": ("part-001.tar: holds no images; write it again, or leave it out by --data-errors skip", 1),
        "unreadable": ("part-001.tar: cannot be read: No such file or directory", 1),
    },
}
CASES = [(engine, kind, fault) for engine in PIPELINES for kind, faults in FAULTS.items() for fault in faults]


# Every pipeline takes its samples from one reader. So TensorFlow's meets each fault once: it stops at every second one,
# and skips the others. --thorough has both.
ALTERNATING = dict(zip(dict.fromkeys(case[1:] for case in CASES), itertools.cycle(("stop", "skip"))))


def every(end):
    """All faults, as parameters of a test about pipelines that stop, or that skip."""
    cases = [pytest.param(*case, marks=thorough_unless(is_quick(*case, end)), id="-".join(case)) for case in CASES]
    return pytest.mark.parametrize("engine, kind, fault", cases)


def is_quick(engine, kind, fault, end):
    return engine != "tensorflow" or ALTERNATING[kind, fault] == end


# The format in which TensorFlow's pipeline does what all of them do in each.
ONCE = {"training": "folder", "counted-again": "webdataset", "all": "tfrecord", "all-repeat": "folder"}


def each(*runs):
    """These runs of all pipelines and formats, as parameters of a test."""
    cases = [(engine, kind, run) for run in runs for engine in PIPELINES for kind in sorted(FAULTS)]
    return pytest.mark.parametrize(
        "engine, kind, run",
        [pytest.param(*case, marks=thorough_unless(is_once(*case)), id="-".join(case)) for case in cases],
    )


def is_once(engine, kind, run):
    return engine != "tensorflow" or ONCE[run] == kind


def runs_of(root, engine, thorough):
    runs = {}
    for kind, faults in FAULTS.items():
        options = {} if kind == "folder" else {"classes": 8}
        for fault in faults:
            run = {"root": str(root / f"{kind}-{fault}"), "find": options}
            opened = {"stop": {"batch_size": 1}, "skip": {"batch_size": 1, "errors": "skip", "workers": 0}}
            for end in opened:
                if thorough or is_quick(engine, kind, fault, end):
                    runs[f"{kind}-{fault}-{end}"] = {**run, "open": opened[end]}
        cut = {"root": str(root / f"{kind}-cut off"), "find": options}
        training = {"batch_size": 1, "errors": "skip", "training": True}
        bad = {"root": str(root / f"{kind}-all"), "open": {"errors": "skip", "repeat": True}}
        every_kind = {
            "training": {**cut, "open": training},
            "counted-again": {**cut, "open": {**training, "repeat": True}, "most": 22},
            "all-repeat": bad,
            "all": {**bad, "open": {"errors": "skip"}},
        }
        runs.update(
            (f"{kind}-{name}", run) for name, run in every_kind.items() if thorough or is_once(engine, kind, name)
        )
        runs[f"{kind}-left-early"] = {**cut, "open": {"repeat": True, "errors": "skip"}, "most": 1}
    share = {"batch_size": 1, "errors": "skip", "repeat": True, "replica": 1, "replicas": 2}
    return {**runs, "share": {"root": str(root / "share"), "open": share}}


def runs_of_torch(root, thorough):
    endless = {"root": str(root / "folder-cut off"), "open": {"repeat": True, "errors": "skip"}}
    return {
        **runs_of(root, "torch", thorough),
        "killed": {**endless, "kill_after": 2},
        "killed-early": {**endless, "kill_after": 1},
        "killed-at-birth": {**endless, "kill_newborn": True},
        "silent": {"root": str(root / "silent"), "silence_s": 1},
    }


@pytest.fixture(scope="module")
def seen(pytestconfig, tmp_path_factory):
    thorough = pytestconfig.option.thorough
    root = tmp_path_factory.mktemp("faults")
    for kind, faults in FAULTS.items():
        for fault in faults:
            broken_sets.write(root / f"{kind}-{fault}", kind, fault)
        sets_of.WRITERS[kind](root / f"{kind}-all", [(label, b"no image") for label in range(4)])
    images = [(label, b"no image" if label % 2 else image) for label, image in sets_of.labelled(4)]
    sets_of.write_folder(root / "share", images)
    sets_of.write_folder(root / "silent", sets_of.labelled())
    (root / "silent" / "class3" / "003.png").unlink()
    # Nobody ever writes into it, so that a worker waits for ever.
    os.mkfifo(str(root / "silent" / "class3" / "003.png"))
    # A graph takes TensorFlow a quarter of a second.
    checksum = [(label, sets_of.plain(colour)) for label, colour in enumerate(sets_of.COLOURS)]
    checksum[3] = (3, sets_of.flip(-14)(checksum[3][1]))
    sets_of.write_folder(root / "checksum", checksum)
    of_tensorflow = runs_of(root, "tensorflow", thorough)
    for errors in ("stop", "skip"):
        of_tensorflow[f"png-{errors}"] = {"root": str(root / "checksum"), "open": {"errors": errors}}
    return asker({"torch": runs_of_torch(root, thorough), "tensorflow": of_tensorflow}, tmp_path_factory)


@every("stop")
def test_a_fault_stops_with_one_line_that_names_it(seen, engine, kind, fault):
    name, text = seen(engine)[0][f"{kind}-{fault}-stop"]["error"]

    assert name == "BadImage", text
    assert FAULTS[kind][fault][0] in text
    assert "\n" not in text
    assert text.startswith("/")


@every("skip")
def test_a_fault_is_left_out_and_counted(seen, engine, kind, fault):
    found = seen(engine)[0][f"{kind}-{fault}-skip"]
    line, lost = FAULTS[kind][fault]

    assert found["error"] is None, found["error"]
    assert found["skipped"][0] == lost
    assert line in found["skipped"][1]
    assert "\n" not in found["skipped"][1]
    assert {0, 2, 4, 6} <= set(found["labels"])
    assert 3 not in found["labels"] or fault == "file cut off"


@each("training")
def test_training_sees_that_a_jpeg_is_cut_off(seen, engine, kind, run):
    found = seen(engine)[0][f"{kind}-{run}"]

    assert found["skipped"][0] == 1
    assert sorted(found["labels"]) == [0, 1, 2, 4, 5, 6, 7]


@each("counted-again")
def test_a_fault_counts_again_in_every_epoch(seen, engine, kind, run):
    found = seen(engine)[0][f"{kind}-{run}"]

    assert found["error"] is None, found["error"]
    assert found["skipped"][0] >= 2


@each("all", "all-repeat")
def test_a_set_without_one_good_image_ends(seen, engine, kind, run):
    name, text = seen(engine)[0][f"{kind}-{run}"]["error"]

    assert name == "ValueError"
    assert "has no image that can be used" in text
    assert "not a JPEG or PNG image" in text


@pytest.mark.parametrize("engine", PIPELINES)
def test_a_replica_without_one_good_image_says_that_its_share_has_none(seen, engine):
    name, text = seen(engine)[0]["share"]["error"]

    assert name == "ValueError"
    assert text.startswith("the share of replica 1 of 2 in /")
    assert "has no image that can be used" in text


def test_what_only_tensorflow_refuses_is_named_too(seen):
    """Pillow does not look at the checksum of the pixels of a PNG."""
    runs = seen("tensorflow")[0]
    line = "class3/003.png: tensorflow cannot decode it, Pillow can"

    assert runs["png-stop"]["error"][0] == "BadImage"
    assert runs["png-stop"]["error"][1].endswith(line)
    assert runs["png-skip"]["skipped"][0] == 1
    assert runs["png-skip"]["skipped"][1].endswith(line)


@pytest.mark.parametrize("engine", PIPELINES)
def test_nothing_takes_long_and_no_process_is_left(seen, engine):
    runs = seen(engine)[0]

    assert {name: run["seconds"] for name, run in runs.items() if run["seconds"] > 15} == {}
    assert {name: run["children"] for name, run in runs.items() if run["children"]} == {}


@pytest.mark.parametrize("run", ["killed", "killed-early", "killed-at-birth"])
def test_a_killed_worker_is_one_line_within_seconds(seen, run):
    name, text = seen("torch")[0][run]["error"]

    assert name == "Stopped"
    assert "was killed by SIGKILL (out of memory?)" in text
    assert "\n" not in text
    assert seen("torch")[0][run]["seconds"] < 10


def test_a_worker_that_goes_silent_is_one_line(seen):
    name, text = seen("torch")[0]["silent"]["error"]

    assert name == "Stopped"
    assert "no batch from the torch input pipeline for 1 s" in text


def test_workers_end_when_their_parent_is_killed(tmp_path):
    pytest.importorskip("torch")
    import subprocess
    import sys

    sets_of.write_folder(tmp_path / "set", sets_of.labelled())
    code = (
        "import os, sys; sys.path[:0] = sys.argv[1:3]\n"
        "import pipeline_runs; from bench.images import find, pipelines\n"
        "opened = pipelines.load('torch').open(find(sys.argv[3]), **{**pipeline_runs.DEFAULTS, 'repeat': True})\n"
        "batches = opened.__enter__(); next(batches)\n"
        "print(*pipeline_runs.children(), flush=True); os.kill(os.getpid(), 9)\n"
    )
    here = Path(__file__).resolve().parent
    command = [sys.executable, "-W", "ignore", "-c", code, str(here), str(here.parents[1]), str(tmp_path / "set")]

    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=60)
    workers = [int(pid) for pid in done.stdout.split()]

    assert len(workers) == 2
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [pid for pid in workers if alive(pid)] == []


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
