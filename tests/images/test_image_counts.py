"""How many images TFRecords and tars have: what their readers will give, counted without reading an image."""

from __future__ import annotations

import importlib.util
import json
import os

import broken_sets
import picture_sets
import pytest
from suite import needs
from test_image_faults import FAULTS

from bench import workloads
from bench.cases.case import Case, Settings
from bench.images import BadImage, epoch, find, sets, tfrecords
from bench.images.counting import counted
from bench.processes import agent

pytest.importorskip("PIL")
pytest.importorskip("google_crc32c")

SHARDS = ("tfrecord", "webdataset")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYERBENCH_CACHE", str(tmp_path / "cache"))


def written(root, kind, count=7, shards=3):
    picture_sets.WRITERS[kind](root, picture_sets.labelled(count), shards)
    return find(root)


def given(dataset):
    """How many images and faults the reader gives."""
    return sum(1 for file in dataset.files for _ in sets.samples(dataset, dataset.path(file), lambda number: True))


@pytest.mark.parametrize("kind", SHARDS)
def test_images_are_counted_file_by_file(tmp_path, kind):
    found = counted(written(tmp_path / "set", kind))

    assert (found.count, found.counts) == (7, (3, 2, 2))


def test_a_folder_is_counted_by_its_names(tmp_path):
    picture_sets.write_folder(tmp_path / "set", picture_sets.labelled(5))

    assert counted(find(tmp_path / "set")).count == 5


@pytest.mark.parametrize("kind", SHARDS)
def test_progress_is_told_by_files_and_what_is_known_is_not_counted_again(tmp_path, kind):
    dataset = written(tmp_path / "set", kind)
    first, second, third = [], [], []

    counted(dataset, tell=first.append)
    counted(dataset, tell=second.append)
    path = dataset.path(dataset.files[1])
    os.utime(path, ns=(1, 1))
    again = counted(dataset, tell=third.append)

    assert first == [f"counting images {number}/3 files" for number in (1, 2, 3)]
    assert second == []
    assert third == ["counting images 2/3 files"]
    assert again.counts == (3, 2, 2)


def test_a_file_that_grew_is_counted_again(tmp_path):
    dataset = written(tmp_path / "set", "tfrecord")
    counted(dataset)
    path = tmp_path / "set" / "train-00000-of-00003"
    kept = os.stat(str(path)).st_mtime_ns
    with path.open("ab") as file:
        tfrecords.write(file, b"one more")
    os.utime(str(path), ns=(kept, kept))

    assert counted(dataset).counts == (4, 2, 2)


@pytest.mark.parametrize("kind, fault", [(kind, fault) for kind in SHARDS for fault in FAULTS[kind]])
def test_a_broken_set_counts_what_its_readers_give(tmp_path, kind, fault):
    broken_sets.write(tmp_path / "set", kind, fault)
    dataset = find(tmp_path / "set", classes=8)

    found = counted(dataset, "skip")

    assert given(dataset) == found.count


@pytest.mark.parametrize("kind", SHARDS)
def test_a_file_cut_anywhere_counts_what_its_readers_give(tmp_path, kind):
    dataset = written(tmp_path / "set", kind, shards=1)
    path = tmp_path / "set" / dataset.files[0]
    whole = path.read_bytes()

    for cut in sorted({*range(0, len(whole), 197), *range(0, len(whole) + 1, 512)}):
        path.write_bytes(whole[:cut])
        found = counted(dataset, "skip").count
        assert given(dataset) == found, cut


@pytest.mark.parametrize("kind, where", [("tfrecord", "record 1"), ("webdataset", "part-001.tar: no tar, or damaged")])
def test_with_stop_a_damaged_file_ends_the_count_each_time(tmp_path, kind, where):
    broken_sets.write(tmp_path / "set", kind, {"tfrecord": "length", "webdataset": "header"}[kind])
    dataset = find(tmp_path / "set")

    for _ in range(2):
        with pytest.raises(BadImage, match=where) as caught:
            counted(dataset, "stop")
        assert "\n" not in str(caught.value)


def test_a_bad_image_in_a_whole_file_is_no_matter_of_counting(tmp_path):
    broken_sets.write(tmp_path / "set", "webdataset", "no label")

    assert counted(find(tmp_path / "set"), "stop").count == 8


def test_a_set_of_no_images_is_one_line(tmp_path):
    picture_sets.write_members(tmp_path / "set", [[("txt", b"a note")]], shards=1)

    with pytest.raises(BadImage, match=r"part-000.tar: holds no images; write it again, or leave it out"):
        counted(find(tmp_path / "set"))


# The packages that read them.


@pytest.mark.parametrize(
    "kind, backend, package, told",
    [
        ("tfrecord", "torch", "google_crc32c", "google-crc32c"),
        ("tfrecord", "tensorflow", "google_crc32c", "google-crc32c"),
        ("tfrecord", "torch", "PIL", "pillow"),
        ("webdataset", "tensorflow", "torch", ""),
        ("webdataset", "numpy", "torch", "torch"),
    ],
)
def test_a_missing_package_is_known_before_a_worker_starts(tmp_path, monkeypatch, kind, backend, package, told):
    """Cases of TensorFlow are read by TensorFlow, all others by torch."""
    needs(backend)
    written(tmp_path / "set", kind)
    there = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else there(name))
    mode = "training" if backend in ("torch", "tensorflow") else "eval"
    network = workloads.load("resnet8")
    size = {**next(iter(workloads.named_sizes(network).values())), **network.tiny, "classes": 8}
    dimensions = {name: size[name] for name in network.dimensions}
    case = Case("resnet8", "tiny", dimensions, mode, 1, "fp32", 1, backend, "cpu")
    settings = Settings(data="real", data_dir=str(tmp_path / "set"))

    found = agent.Machine.require(case.plain(), settings.plain())

    assert found == (f"not installed: {told} (pip install -e '.[images]' -c constraints/cpu.txt)" if told else "")


# What stands beside tars.


def sizes(root, found):
    (root / "sizes.json").write_text(found if isinstance(found, str) else json.dumps(found))


def test_sizes_beside_tars_are_believed_if_they_name_every_tar(tmp_path):
    dataset = written(tmp_path / "set", "webdataset")
    sizes(tmp_path / "set", {"part-000.tar": 3, "part-001.tar": 2, "part-002.tar": 2, "part-003.tar": 9})

    told = []
    assert counted(dataset, tell=told.append).counts == (3, 2, 2)
    assert told == []


@pytest.mark.parametrize(
    "found",
    [
        {"part-000.tar": 9, "part-001.tar": 9},
        {"part-000.tar": 9, "part-001.tar": 9, "part-002.tar": "9"},
        {"part-000.tar": 9, "part-001.tar": 9, "part-002.tar": -1},
        {"part-000.tar": 9, "part-001.tar": 9, "part-002.tar": True},
        [9, 9, 9],
        "no JSON",
    ],
    ids=str,
)
def test_sizes_that_do_not_fit_are_left_alone(tmp_path, found):
    dataset = written(tmp_path / "set", "webdataset")
    sizes(tmp_path / "set", found)

    assert counted(dataset).counts == (3, 2, 2)


@pytest.mark.parametrize("told, said", [(2, "holds more than 2 images"), (4, "holds 3 images")])
def test_sizes_that_are_wrong_are_told_by_who_reads(tmp_path, told, said):
    written(tmp_path / "set", "webdataset")
    sizes(tmp_path / "set", {"part-000.tar": told, "part-001.tar": 2, "part-002.tar": 2})
    dataset = counted(find(tmp_path / "set"))

    found = [one for one in epoch.epoch(dataset, epoch.Part(), 0, None) if isinstance(one, BadImage)]
    assert len(found) == 1
    assert f"part-000.tar: {said}, and was counted to hold {told}" in str(found[0])


# The parent of a set.


@pytest.mark.parametrize("kind", sorted(picture_sets.WRITERS))
@pytest.mark.parametrize("name", ["imagenet-data", "anything"])
def test_the_parent_of_one_set_stands_for_it(tmp_path, kind, name):
    picture_sets.WRITERS[kind](tmp_path / name, picture_sets.labelled(2))
    (tmp_path / "notes").mkdir()
    (tmp_path / "readme.txt").touch()

    found = find(tmp_path)

    assert found.root == str(tmp_path / name)
    assert found == find(tmp_path / name)


def test_the_parent_of_a_set_with_splits_stands_for_it(tmp_path):
    picture_sets.write_folder(tmp_path / "imagenet" / "train", picture_sets.labelled(2))
    picture_sets.write_folder(tmp_path / "imagenet" / "val", picture_sets.labelled(1))

    assert find(tmp_path, "validation").files == ("val/class0/000.png",)


def test_the_parent_of_several_sets_names_them(tmp_path):
    for name, kind in {"one": "tfrecord", "two": "webdataset"}.items():
        picture_sets.WRITERS[kind](tmp_path / name, picture_sets.labelled(2))

    with pytest.raises(ValueError, match=r"holds several sets of images: one, two; give one of these folders$"):
        find(tmp_path)


def test_a_set_is_not_the_parent_of_another_in_it(tmp_path):
    picture_sets.write_folder(tmp_path, picture_sets.labelled(2))
    picture_sets.write_tars(tmp_path / "older", picture_sets.labelled(2))

    with pytest.raises(ValueError, match="older holds no images"):
        find(tmp_path)


# Pictures without classes.


@pytest.mark.parametrize("place", [".", "validation"])
def test_pictures_without_classes_are_good_for_what_needs_no_label(tmp_path, place):
    (tmp_path / place).mkdir(exist_ok=True)
    for name in ("b.png", "a.JPG", "c.txt"):
        (tmp_path / place / name).touch()

    found = find(tmp_path, "validation", labelled=False)

    assert [os.path.basename(file) for file in found.files] == ["a.JPG", "b.png"]
    assert (found.format, found.count, found.labelled, found.classes) == ("folder", 2, False, None)
    with pytest.raises(ValueError, match="holds images without classes; put them into a folder per class"):
        find(tmp_path, "validation")
