"""Generated images: like photographs in size, the same every time, and whole or not there at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import picture_sets
import pytest

from bench.images import epoch, find, generated, sets
from bench.images.counting import counted
from scripts import make_images

pytest.importorskip("PIL")
pytest.importorskip("google_crc32c")

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--images=5", "--classes=2", "--size=40x30"]


def made(capsys, *arguments):
    """Exit code and what was said."""
    code = make_images.main([*SMALL, *arguments])
    said = capsys.readouterr()
    return code, said.out + said.err


def images_of(dataset):
    return {
        (found.label, sets.content(dataset, found)) for found in epoch.epoch(counted(dataset), epoch.Part(), 0, None)
    }


@pytest.mark.parametrize("kind", sorted(picture_sets.WRITERS))
def test_every_format_holds_the_same_images(tmp_path, capsys, kind):
    code, said = made(capsys, f"--format={kind}", f"--out={tmp_path / 'set'}")
    folder = generated.make(tmp_path / "folder", images=5, classes=2, width=40, height=30)

    assert code == 0
    assert "5/5 images" in said
    assert f"5 images in {tmp_path / 'set'}" in said
    got = images_of(find(tmp_path / "set", classes=2))
    assert got == images_of(folder)
    assert sorted(label for label, _ in got) == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("kind", sorted(picture_sets.WRITERS))
def test_a_set_serves_for_both_splits(tmp_path, kind):
    generated.make(tmp_path / "set", images=3, classes=1, width=8, height=8, format=kind)

    assert len(images_of(find(tmp_path / "set", "validation"))) == 3


def test_the_seed_makes_the_images(tmp_path):
    one, two, other = (
        images_of(generated.make(tmp_path / name, images=2, classes=1, width=40, height=30, seed=seed))
        for name, seed in (("one", 1), ("two", 1), ("other", 2))
    )

    assert one == two
    assert len(one | other) == 4


def test_an_image_is_as_large_and_as_varied_as_a_photograph():
    """ImageNet's are 110 kB on average; brightness spreads over the range, and neighbours are alike."""
    made_of = generated._generated(3, 3, (500, 375), 0, None)
    sizes = [len(one.jpeg) for one in made_of]
    light = generated.picture(0, 0, 8, (500, 375), 0)[:, :, 1].astype(float)

    assert 90_000 < min(sizes) < max(sizes) < 130_000
    assert 40 < light.std() < 70
    assert np.abs(np.diff(light, axis=1)).mean() < light.std() / 2


def test_shards_hold_so_many_images_each(tmp_path, monkeypatch):
    monkeypatch.setattr(generated, "SHARD", 2)

    files = generated.make(tmp_path / "set", images=5, classes=1, width=8, height=8, format="tfrecord").files

    assert files == ("train-00000-of-00003", "train-00001-of-00003", "train-00002-of-00003")


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--out=full"], "full is not empty; choose a new folder, nothing is overwritten"),
        (["--out=full/file"], "file is not empty; choose a new folder"),
        (["--out=new", "--images=1"], "images=1, classes=2; every class needs an image"),
        (["--out=new", "--images=0"], "images=0; at least 1 is needed"),
        (["--out=new", "--size=0x30"], "width=0; at least 1 is needed"),
        (["--out=new", "--seed=-1"], "seed=-1; at least 0 is needed"),
        (["--out=full/file/new"], "full/file: File exists; full/file/new is as it was before"),
        (["--out=/proc/new"], "/proc/new is as it was before"),
    ],
)
def test_what_cannot_be_made_is_one_line_and_nothing_is_written(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")

    code, text = made(capsys, *arguments)

    assert code == 1
    assert said in text
    assert len(text.strip().splitlines()) == 1
    assert [str(path.relative_to(tmp_path)) for path in picture_sets.files(tmp_path)] == ["full/file"]
    assert (tmp_path / "full" / "file").read_text() == "mine"


def test_ctrl_c_leaves_a_message_and_nothing_else(tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "make_images.py"), "--images=100000", f"--out={tmp_path / 'set'}"]
    running = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore Ctrl-C, and so would this process.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 30
        while not picture_sets.files(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.02)

        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=30)
    finally:
        running.kill()

    assert running.returncode == 130
    assert f"interrupted: {tmp_path / 'set'} is as it was before" in said
    assert "Traceback" not in said
    assert os.listdir(str(tmp_path)) == []


def test_a_set_is_kept_in_the_cache_and_made_once(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYERBENCH_CACHE", str(tmp_path))

    first = generated.cached(images=2, classes=2, width=8, height=8)
    written = [path.stat().st_mtime_ns for path in picture_sets.files(first.root)]
    again = generated.cached(images=2, classes=2, width=8, height=8)

    assert Path(first.root).parent == tmp_path
    assert again == first
    assert [path.stat().st_mtime_ns for path in picture_sets.files(first.root)] == written
    assert generated.cached(images=2, classes=2, width=9, height=8).root != first.root


def test_a_set_that_fails_halfway_is_not_there(tmp_path):
    def fail(number):
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        generated.make(tmp_path / "set", images=2, classes=1, width=8, height=8, tell=fail)

    assert os.listdir(str(tmp_path)) == []


def test_what_a_killed_process_left_in_the_cache_is_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYERBENCH_CACHE", str(tmp_path))
    set_of_two = generated.cached(images=2, classes=2, width=8, height=8)
    half = tmp_path / f".{Path(set_of_two.root).name}.half"
    half.mkdir()
    (half / "image.jpg").touch()

    generated.cached(images=2, classes=2, width=8, height=8)

    assert not half.exists()
