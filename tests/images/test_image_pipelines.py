"""Both input pipelines on whole sets of every format: what comes out, in what order and how often."""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import signal
import subprocess
import sys

import numpy as np
import picture_sets
import pipeline_runs
import pytest

from bench.images import pipelines
from bench.images.dataset import FORMATS

pytest.importorskip("PIL")
pytest.importorskip("google_crc32c")

PIPELINES = pipelines.names()
TIMEOUT_S = 400
# A process for each pipeline, which has its framework: for all files of tests.
ASKED = {}
PAIRS = [(engine, kind) for engine in PIPELINES for kind in FORMATS]
EVERY = pytest.mark.parametrize("engine, kind", PAIRS, ids=["-".join(pair) for pair in PAIRS])
# Every pipeline takes its samples from one reader, and a graph takes TensorFlow a third of a second. So TensorFlow's
# does these of a folder only, and of every format with --thorough.
OF_A_FOLDER = ("evaluation-again", "training-again", "wraps", "rest")


def is_quick(engine, kind, *names):
    return engine != "tensorflow" or kind == "folder" or not {*names} & {*OF_A_FOLDER}


def thorough_unless(quick):
    return () if quick else pytest.mark.thorough


def every(*names):
    """All pipelines and formats, as parameters of a test about runs of these names."""
    pairs = [pytest.param(*pair, marks=thorough_unless(is_quick(*pair, *names)), id="-".join(pair)) for pair in PAIRS]
    return pytest.mark.parametrize("engine, kind", pairs)


def runs_of(sets, engine, thorough):
    """Every run, by name; the tests below ask for them by name."""
    runs = {}
    for kind in FORMATS:
        labels = {"root": str(sets / f"{kind}-labelled"), "find": {"classes": 8} if kind != "folder" else {}}
        for workers in (0, 2, 5):
            runs[f"{kind}-evaluation-{workers}"] = {**labels, "open": {"workers": workers}}
        runs[f"{kind}-evaluation-again"] = {**labels, "open": {"workers": 2}}
        training = {"training": True, "seed": 7}
        runs[f"{kind}-training"] = {**labels, "open": training}
        runs[f"{kind}-training-again"] = {**labels, "open": training}
        runs[f"{kind}-endless"] = {**labels, "open": {**training, "repeat": True}, "most": 12}
        three = {"root": str(sets / f"{kind}-three")}
        runs[f"{kind}-wraps"] = {**three, "open": {"batch_size": 8, "repeat": True}, "most": 2}
        runs[f"{kind}-too-few"] = {**three, "open": {"batch_size": 8}}
        runs[f"{kind}-rest"] = {**labels, "open": {"batch_size": 3, "workers": 0}}
        if not thorough:
            for name in OF_A_FOLDER:
                if not is_quick(engine, kind, name):
                    del runs[f"{kind}-{name}"]
    runs["exact"] = {"root": str(sets / "two"), "open": {"image_size": 224}, "keep": True}
    runs["converted"] = {"root": str(sets / "converted"), "open": {"batch_size": len(CONVERTED)}, "keep": True}
    runs["other-seed"] = {"root": str(sets / "folder-labelled"), "open": {"training": True, "seed": 8}}
    smooth = {"root": str(sets / "smooth"), "keep": True}
    runs["smooth"] = {**smooth, "open": {"image_size": 224, "batch_size": 4}}
    runs["flips"] = {
        "root": str(sets / "two"),
        "open": {"image_size": 32, "training": True, "batch_size": 64, "repeat": True},
        "most": 1,
        "keep": True,
    }
    runs["flips elsewhere"] = {**runs["flips"], "root": str(sets / "elsewhere" / "two")}
    return runs


def converted():
    """Images that are no plain RGB, and the colour they have to become."""
    from PIL import Image

    png, grey = picture_sets.encoded, Image.new("L", (40, 30), 77)
    palette = Image.new("P", (40, 30), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    sixteen = Image.fromarray(np.full((30, 40), 77 * 256 + 99, np.uint16))
    return [
        (png(grey), (77, 77, 77)),
        (png(grey, "JPEG"), (77, 77, 77)),
        (png(Image.new("RGBA", (40, 30), (10, 20, 30, 0))), (10, 20, 30)),
        (png(Image.new("LA", (40, 30), (77, 0))), (77, 77, 77)),
        (png(palette), (10, 20, 30)),
        (png(Image.new("1", (40, 30), 1)), (255, 255, 255)),
        (png(sixteen), (77, 77, 77)),
        (picture_sets.png_of_16_bits((10 * 256 + 200, 20 * 256 + 200, 30 * 256 + 200)), (10, 20, 30)),
        # Full ink of cyan and half of black, in a JPEG, where the values are inverted.
        (png(Image.new("CMYK", (40, 30), (255, 0, 0, 127)), "JPEG"), (0, 128, 128)),
    ]


CONVERTED = [
    "grey",
    "grey JPEG",
    "RGBA",
    "grey and alpha",
    "palette",
    "1 bit",
    "16-bit grey",
    "16-bit RGB",
    "CMYK JPEG",
]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    for kind, write in picture_sets.WRITERS.items():
        write(root / f"{kind}-labelled", picture_sets.labelled())
        write(root / f"{kind}-three", picture_sets.labelled(3))
    for folder in (root, root / "elsewhere"):
        picture_sets.write_folder(folder / "two", [(0, picture_sets.two_colours())] * 2)
    picture_sets.write_folder(root / "converted", [(label, data) for label, (data, _) in enumerate(converted())])
    picture_sets.write_folder(root / "smooth", [(0, picture_sets.smooth(number)) for number in range(4)])
    return root


@pytest.fixture(scope="module")
def seen(sets, pytestconfig, tmp_path_factory):
    """Return a function from a pipeline to what its process saw of every run, and where it left pixels."""
    thorough = pytestconfig.option.thorough
    return asker({engine: runs_of(sets, engine, thorough) for engine in PIPELINES}, tmp_path_factory)


def asker(runs, tmp_path_factory):
    """The same for other runs, given by pipeline."""
    known = {}

    def ask(engine):
        package = pipelines.load(engine).PACKAGE
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
        if engine not in known:
            folder = tmp_path_factory.mktemp(engine)
            (folder / "runs.json").write_text(json.dumps(runs[engine]))
            code = answered(engine, folder)
            # Where the process takes too long, each test says so, and none waits again.
            known[engine] = f"{engine}: no end after {TIMEOUT_S} s"
            if code == 0:
                known[engine] = json.loads((folder / "seen.json").read_text()), folder
            elif code != -signal.SIGALRM:
                known[engine] = (folder / "said.txt").read_text(errors="replace")[-4000:] or f"{engine}: {code}"
        assert not isinstance(known[engine], str), known[engine]
        return known[engine]

    return ask


def answered(engine, folder):
    """The exit code of the process that answers what `folder` asks."""
    if engine not in ASKED:
        ASKED[engine] = subprocess.Popen(
            [sys.executable, "-W", "ignore", pipeline_runs.__file__, engine],
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(ASKED[engine].communicate)
    process = ASKED[engine]
    process.stdin.write(json.dumps([str(folder), TIMEOUT_S]) + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    assert line, f"the process of {engine} has ended"
    return int(line)


def passed(seen, engine, name):
    found = seen(engine)[0][name]
    assert found["error"] is None, found["error"]
    return found


@EVERY
@pytest.mark.parametrize("workers", [0, 2, 5])
def test_an_epoch_has_every_image_once(seen, engine, kind, workers):
    found = passed(seen, engine, f"{kind}-evaluation-{workers}")

    assert sorted(found["labels"]) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert found["skipped"] == [0, None]


@EVERY
def test_batches_are_bytes_in_the_order_of_cameras(seen, engine, kind):
    found = passed(seen, engine, f"{kind}-evaluation-2")

    assert found["form"] == ["uint8", [2, 3, 16, 16], True, "int64"]


@every("evaluation-again")
def test_evaluation_has_one_order(seen, engine, kind):
    one, two = (passed(seen, engine, f"{kind}-evaluation-{which}") for which in ("2", "again"))

    assert one["labels"] == two["labels"]
    assert one["digest"] == two["digest"]


@pytest.mark.parametrize("engine", PIPELINES)
def test_a_folder_is_evaluated_in_its_order_whatever_the_workers(seen, engine):
    for workers in (0, 2, 5):
        assert passed(seen, engine, f"folder-evaluation-{workers}")["labels"] == [0, 1, 2, 3, 4, 5, 6, 7]


@EVERY
def test_training_is_shuffled_and_has_every_image_once(seen, engine, kind):
    found = passed(seen, engine, f"{kind}-training")

    assert sorted(found["labels"]) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert found["labels"] != passed(seen, engine, f"{kind}-evaluation-2")["labels"]


@every("training-again")
def test_training_is_the_same_with_the_same_seed(seen, engine, kind):
    one, two = (passed(seen, engine, f"{kind}-training{which}") for which in ("", "-again"))

    assert (one["labels"], one["digest"]) == (two["labels"], two["digest"])


@pytest.mark.parametrize("engine", PIPELINES)
def test_the_random_part_of_an_image_does_not_depend_on_where_the_set_is(seen, engine):
    one, two = (passed(seen, engine, name) for name in ("flips", "flips elsewhere"))

    assert one["digest"] == two["digest"]


@pytest.mark.parametrize("engine", PIPELINES)
def test_training_is_another_with_another_seed(seen, engine):
    one, two = (passed(seen, engine, name) for name in ("folder-training", "other-seed"))

    assert one["labels"] != two["labels"]


@EVERY
def test_repeat_goes_on_with_every_image_in_each_epoch(seen, engine, kind):
    labels = passed(seen, engine, f"{kind}-endless")["labels"]

    assert len(labels) == 24
    assert {labels.count(label) for label in range(8)} == {3}
    assert labels[:8] != labels[8:16]


@every("wraps")
def test_a_set_smaller_than_a_batch_wraps_around_with_repeat(seen, engine, kind):
    labels = passed(seen, engine, f"{kind}-wraps")["labels"]

    assert len(labels) == 16
    assert set(labels) == {0, 1, 2}


@EVERY
def test_a_set_smaller_than_a_batch_is_refused_without_repeat(seen, engine, kind):
    name, text = seen(engine)[0][f"{kind}-too-few"]["error"]

    assert name == "ValueError"
    assert "has 3 images, fewer than a batch of 8" in text


@every("rest")
def test_the_rest_of_an_epoch_is_dropped(seen, engine, kind):
    assert len(passed(seen, engine, f"{kind}-rest")["labels"]) == 6


@pytest.mark.parametrize(
    "run, kind",
    [
        pytest.param(run, kind, marks=thorough_unless(is_quick("tensorflow", kind, run)))
        for run in ("evaluation-0", "evaluation-2", "evaluation-5", "training", "endless", "wraps", "rest")
        for kind in FORMATS
    ],
)
def test_both_pipelines_give_the_same_images_labels_and_order(seen, kind, run):
    """Each image has one colour, so that resampling and cropping make no difference."""
    one, two = (passed(seen, engine, f"{kind}-{run}") for engine in PIPELINES)

    assert (one["labels"], one["digest"]) == (two["labels"], two["digest"])


@pytest.mark.parametrize("engine", PIPELINES)
def test_the_middle_is_exact_where_nothing_is_scaled(seen, engine):
    """512 x 256 for 224: the middle is columns 144 to 367, and the colours meet at 256."""
    passed(seen, engine, "exact")
    images = np.load(str(seen(engine)[1] / "exact.npy"))

    left, right = images[:, :, :, :112], images[:, :, :, 112:]
    assert (left == np.array([255, 0, 0])[:, None, None]).all()
    assert (right == np.array([0, 0, 255])[:, None, None]).all()


@pytest.mark.parametrize("engine", PIPELINES)
@pytest.mark.parametrize("number", range(len(CONVERTED)), ids=CONVERTED)
def test_every_kind_of_image_becomes_rgb(seen, engine, number):
    passed(seen, engine, "converted")
    image = np.load(str(seen(engine)[1] / "converted.npy"))[number].astype(int)

    # JPEG keeps one colour to one level; two conversions of CMYK may each round.
    expected = np.array(converted()[number][1])[:, None, None]
    assert np.abs(image - expected).max() <= (2 if "JPEG" in CONVERTED[number] else 0)


def test_pipelines_show_the_same_in_evaluation(seen):
    """Apart by 0.15 levels on average and 2 at most, where there is no fine detail: resampling differs."""
    passed(seen, "torch", "smooth")
    passed(seen, "tensorflow", "smooth")
    one, two = (np.load(str(seen(engine)[1] / "smooth.npy")).astype(int) for engine in ("torch", "tensorflow"))

    assert np.abs(one - two).mean() < 0.3
    assert np.abs(one - two).max() <= 3


@pytest.mark.parametrize("engine", PIPELINES)
def test_training_mirrors_half_of_the_images_and_shows_parts(seen, engine):
    """Red lies left of blue: where both show, which is left tells what was mirrored."""
    passed(seen, engine, "flips")
    images = np.load(str(seen(engine)[1] / "flips.npy")).astype(int)
    red, blue = images[:, 0].mean(axis=1), images[:, 2].mean(axis=1)

    both = (red.max(axis=1) > 200) & (blue.max(axis=1) > 200)
    mirrored = red[both, 0] < red[both, -1]

    assert both.sum() >= 16
    assert 0.2 < mirrored.mean() < 0.8
    assert len({row.tobytes() for row in red}) > 16


@pytest.mark.parametrize("engine", PIPELINES)
def test_no_process_is_left(seen, engine):
    assert {name: run["children"] for name, run in seen(engine)[0].items() if run["children"]} == {}
