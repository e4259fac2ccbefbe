"""What a folder holds is found by names alone; what is unclear is told in one line. No Pillow is needed."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.images import BadImage, find, geometry
from bench.images.pixels import normalised

ROOT = Path(__file__).resolve().parents[2]


def lay(root, *files):
    """Make empty files; `find` opens none."""
    for file in files:
        path = Path(root) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def refused(path, *args, **options):
    with pytest.raises(ValueError, match=r".") as caught:
        find(path, *args, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_classes_are_the_folders_sorted_by_name(tmp_path):
    lay(tmp_path, "dog/b.jpg", "dog/a.JPEG", "cat/x.png", "dog/notes.txt", "dog/.a.jpg", ".git/x.jpg")

    found = find(tmp_path)

    assert found.format == "folder"
    assert found.files == ("cat/x.png", "dog/a.JPEG", "dog/b.jpg")
    assert found.labels == (0, 1, 1)
    assert (found.classes, found.count) == (2, 3)
    assert found.path("dog/b.jpg") == str(tmp_path / "dog" / "b.jpg")


@pytest.mark.parametrize("name, split", [("train", "train"), ("validation", "validation"), ("val", "validation")])
def test_a_split_is_its_subfolder(tmp_path, name, split):
    lay(tmp_path, "train/a/1.jpg", "train/b/2.jpg", f"{name}/a/3.jpg", f"{name}/b/4.jpg")

    found = find(tmp_path, split)

    assert {file.split("/")[0] for file in found.files} == {name}
    assert found.split == split


def test_a_folder_without_splits_serves_for_both(tmp_path):
    lay(tmp_path, "a/1.jpg")

    assert find(tmp_path, "train").files == find(tmp_path, "validation").files


def test_tfrecords_are_chosen_by_their_split_and_count_labels_from_1(tmp_path):
    lay(tmp_path, "train-00001-of-00002", "train-00000-of-00002", "validation-00000-of-00001", "labels.txt")

    found = find(tmp_path, "train", classes=1000)

    assert found.format == "tfrecord"
    assert found.files == ("train-00000-of-00002", "train-00001-of-00002")
    assert (found.labels, found.classes, found.count, found.first) == ((), 1000, None, 1)


def test_tars_are_all_taken_where_none_names_a_split(tmp_path):
    lay(tmp_path, "b.tar", "a.tar", "trainer.tar", "a.json")

    found = find(tmp_path, "validation")

    assert found.format == "webdataset"
    assert found.files == ("a.tar", "b.tar", "trainer.tar")
    assert (found.first, found.count, found.classes) == (0, None, None)


def test_tars_that_name_a_split_are_chosen_by_it(tmp_path):
    lay(tmp_path, "imagenet-train-000000.tar", "imagenet-val-000000.tar")

    assert find(tmp_path, "train").files == ("imagenet-train-000000.tar",)
    assert find(tmp_path, "validation").files == ("imagenet-val-000000.tar",)


@pytest.mark.parametrize(
    "files, split, said",
    [
        ([], "train", "holds no images; allowed are <class>/*.jpg"),
        (["notes.txt", "sub/notes.txt"], "train", "holds no images; allowed are"),
        (["a.jpg"], "train", "without classes; put them into a folder per class"),
        (["a/1.jpg", "b/notes.txt"], "train", "b holds no images; fill it, or remove it"),
        (["a/1.jpg", "x.tar"], "train", "holds class folders and tars; one format is allowed"),
        (["train-0-of-1", "x.tar"], "train", "holds TFRecords and tars; one format is allowed"),
        (["train/a/1.jpg"], "validation", "has train and no validation; choose another split"),
        (["val/a/1.jpg", "validation/a/1.jpg"], "validation", "has both validation and val; keep one"),
        (["train-0-of-1"], "validation", "has no validation-*-of-*, only train-0-of-1"),
        (["train-0-of-1", "train-0-of-2"], "train", "mixes train sets, -of-1 and -of-2; keep one"),
        (["train-0.tar"], "validation", "has no tar named validation, only train-0.tar"),
        (["train/notes.txt"], "train", "train holds no images"),
    ],
)
def test_a_folder_that_is_not_clear_is_one_line(tmp_path, files, split, said):
    assert said in refused(lay(tmp_path, *files), split)


def test_a_folder_that_is_missing_or_a_file_is_one_line(tmp_path):
    lay(tmp_path, "file")

    assert "nowhere is not there; give a folder of images" in refused(tmp_path / "nowhere")
    assert "file is not a folder; give the folder that holds" in refused(tmp_path / "file")


@pytest.mark.parametrize(
    "options, said",
    [
        ({"split": "test"}, "split='test'; allowed are train and validation"),
        ({"classes": 0}, "classes=0; at least 1"),
        ({"classes": 1}, "has 2 class folders; at most 1"),
    ],
)
def test_options_that_make_no_sense_are_one_line(tmp_path, options, said):
    assert said in refused(lay(tmp_path, "a/1.jpg", "b/1.jpg"), **options)


def test_a_name_of_any_bytes_fits_on_a_line(tmp_path):
    folder = tmp_path / os.fsdecode(b"a\nb\xff")

    text = refused(folder)

    assert "a b\\udcff is not there" in text
    assert "\n" not in str(BadImage("a\nb", "c\nd"))


def test_what_is_found_crosses_to_other_processes(tmp_path):
    found = find(lay(tmp_path, "a/1.jpg"))
    fault = BadImage("x.jpg", "empty")

    assert pickle.loads(pickle.dumps(found)) == found
    assert str(pickle.loads(pickle.dumps(fault))) == "x.jpg: empty"


def test_finding_and_naming_load_no_framework(tmp_path):
    lay(tmp_path, "a/1.jpg")
    code = (
        "import sys; from bench.images import find, pipelines; find(sys.argv[1]); [pipelines.load(n) for n in"
        " pipelines.names()]; print({'torch', 'tensorflow', 'PIL', 'webdataset'} & set(sys.modules))"
    )

    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=str(ROOT), stdout=subprocess.PIPE, text=True)

    assert done.stdout.strip() == "set()"


def test_a_pixel_is_normalised_by_its_channel():
    images = np.array([0, 255, 51], np.uint8).reshape(1, 1, 1, 3).transpose(0, 3, 1, 2)

    got = normalised(images)

    # (0 - 0.485) / 0.229, (1 - 0.456) / 0.224, (0.2 - 0.406) / 0.225
    np.testing.assert_allclose(got.ravel(), [-2.117904, 2.428571, -0.915556], rtol=1e-5)
    assert got.dtype == np.float32


def test_normalising_keeps_the_order_in_memory():
    images = np.zeros((2, 4, 5, 3), np.uint8).transpose(0, 3, 1, 2)

    for dtype in ("float32", "float16"):
        got = normalised(images, dtype=dtype)
        assert (got.shape, got.dtype) == ((2, 3, 4, 5), np.dtype(dtype))
        assert got.transpose(0, 2, 3, 1).flags["C_CONTIGUOUS"]


@pytest.mark.parametrize(
    "size, image_size, box",
    [
        # Scaled by 1: 512 x 256, of which columns 144 to 367 and rows 16 to 239 are left.
        ((512, 256), 224, (144, 16, 368, 240)),
        # Scaled by 1/2: 300 x 256, offsets 38 and 16.
        ((600, 512), 224, (76, 32, 524, 480)),
        # A side counts up to twice the other: of 1000 x 100, columns 400 to 599, scaled by 2.56.
        ((1000, 100), 224, (400 + 144 / 2.56, 6.25, 400 + 368 / 2.56, 93.75)),
        ((256, 512), 224, (16, 144, 240, 368)),
    ],
)
def test_evaluation_shows_the_middle(size, image_size, box):
    assert geometry.evaluation_box(*size, image_size) == pytest.approx(box)


@pytest.mark.parametrize("image_size, side", [(224, 256), (112, 128), (299, 342), (1, 1)])
def test_the_shorter_side_is_eight_sevenths(image_size, side):
    assert geometry.shorter_side(image_size) == side


def test_training_shows_parts_of_the_size_and_ratio_promised():
    draw = random.Random(1)
    boxes = [geometry.training_box(500, 375, draw) for _ in range(500)]

    shares = [(right - left) * (lower - upper) / (500 * 375) for left, upper, right, lower in boxes]
    ratios = [(right - left) / (lower - upper) for left, upper, right, lower in boxes]

    assert min(shares) == pytest.approx(0.08, abs=0.02)
    assert 0.9 < max(shares) <= 1
    assert 0.74 < min(ratios) < max(ratios) < 1.35
    assert all(0 <= box[0] < box[2] <= 500 and 0 <= box[1] < box[3] <= 375 for box in boxes)


@pytest.mark.parametrize("size, box", [((1000, 9), (494, 0, 506, 9)), ((9, 1000), (0, 494, 9, 506)), ((1, 1), None)])
def test_of_an_image_too_narrow_for_that_the_middle_is_shown(size, box):
    boxes = {geometry.training_box(*size, random.Random(seed)) for seed in range(50)}

    assert (box or (0, 0, 1, 1)) in boxes
