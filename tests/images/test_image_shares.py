"""Replicas share every epoch: all of them together see each image once, whatever the count, the batch and the files."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import numpy as np
import picture_sets
import pytest
from test_image_pipelines import PIPELINES, asker, thorough_unless

from bench.images import epoch as records
from bench.images.dataset import Dataset

pytest.importorskip("PIL")
pytest.importorskip("google_crc32c")

IMAGES, BATCH, UPDATES = 7, 2, 14
# By name: the format, and into how many files it is written.
SETS = {
    "folder": ("folder", 0),
    "tfrecord-1": ("tfrecord", 1),
    "tfrecord-3": ("tfrecord", 3),
    "webdataset-1": ("webdataset", 1),
    "webdataset-3": ("webdataset", 3),
}
# The replicas of each, and who decodes in which mode: a graph, or processes, take time.
SHARES = {"folder": 2, "tfrecord-1": 3, "tfrecord-3": 2, "webdataset-1": 2, "webdataset-3": 3}
WORKERS = {"training": 2, "evaluation": 0}
# Every pipeline takes its samples from one reader, and a graph takes TensorFlow a third of a second. So TensorFlow's
# trains on these and is evaluated on the others. --thorough has both.
TRAINED = ("tfrecord-3", "webdataset-1")


def is_quick(engine, name, mode):
    return engine != "tensorflow" or (name in TRAINED) == (mode == "training")


def every(*modes):
    """All pipelines, sets and these modes, as parameters of a test."""
    triples = [(engine, name, mode) for mode in modes for engine in PIPELINES for name in SETS]
    return pytest.mark.parametrize(
        "engine, name, mode",
        [pytest.param(*one, marks=thorough_unless(is_quick(*one)), id="-".join(one)) for one in triples],
    )


def runs_of(root, engine, thorough):
    runs = {}
    for name, replicas in SHARES.items():
        for mode, workers in WORKERS.items():
            if not thorough and not is_quick(engine, name, mode):
                continue
            for replica in range(replicas):
                asked = {"workers": workers, "repeat": True, "replica": replica, "replicas": replicas}
                asked.update(training=mode == "training", batch_size=BATCH, image_size=8)
                run = {"root": str(root / name), "find": {"classes": IMAGES} if name != "folder" else {}}
                runs[f"{name} {mode} {replica}"] = {**run, "open": asked, "most": UPDATES}
    for replica in range(2):
        bad = {"root": str(root / "bad"), "open": {"errors": "skip", "repeat": True, "training": True, "replicas": 2}}
        runs[f"bad {replica}"] = {**bad, "open": {**bad["open"], "replica": replica}, "most": UPDATES}
    once = {"root": str(root / "folder"), "open": {"batch_size": 4, "rest": True}}
    runs["rest"] = once
    runs["rest of few"] = {**once, "open": {"batch_size": 16, "rest": True}}
    return runs


@pytest.fixture(scope="module")
def seen(pytestconfig, tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    images = picture_sets.labelled(IMAGES)
    for name, (kind, files) in SETS.items():
        picture_sets.WRITERS[kind](root / name, images, *([files] if files else []))
    picture_sets.write_folder(root / "bad", [*picture_sets.labelled(3), (3, b"this is no image")])
    thorough = pytestconfig.option.thorough
    return asker({engine: runs_of(root, engine, thorough) for engine in PIPELINES}, tmp_path_factory)


def labels_of(seen, engine, name, mode):
    """The labels of every update, of all replicas together."""
    runs = [seen(engine)[0][f"{name} {mode} {replica}"] for replica in range(SHARES[name])]
    assert [run["error"] for run in runs] == [None] * len(runs)
    return [
        [label for run in runs for label in run["labels"][update * BATCH : (update + 1) * BATCH]]
        for update in range(UPDATES)
    ]


@every(*WORKERS)
def test_after_every_update_each_image_was_seen_once_in_each_epoch_so_far(seen, engine, name, mode):
    """Of 7 images, an update takes 4 or 6: 14 updates are exactly 8 or 12 epochs."""
    counts = Counter(dict.fromkeys(range(IMAGES), 0))
    together = BATCH * SHARES[name]

    for update, labels in enumerate(labels_of(seen, engine, name, mode), 1):
        counts.update(labels)
        whole = update * together // IMAGES
        assert set(counts.values()) <= {whole, whole + 1}

    assert set(counts.values()) == {UPDATES * together // IMAGES}


@every("training")
def test_epochs_are_shuffled_anew_and_replicas_see_different_images(seen, engine, name, mode):
    updates = labels_of(seen, engine, name, mode)

    halves = [list(chain(*updates[7 * half : 7 * half + 7])) for half in range(2)]
    assert halves[0] != halves[1]
    assert len({tuple(labels[:BATCH]) for labels in updates}) > 2
    assert any(set(labels[:BATCH]) != set(labels[BATCH : 2 * BATCH]) for labels in updates)


@pytest.mark.parametrize("engine", PIPELINES)
def test_replicas_in_turn_see_a_folder_as_one_process_with_their_joined_batches(seen, engine):
    """0 1, 2 3 and so on: of 7 images, position 7 is image 0 again."""
    joined = list(chain(*labels_of(seen, engine, "folder", "evaluation")))

    assert joined == [position % IMAGES for position in range(UPDATES * 2 * BATCH)]


@pytest.mark.parametrize("engine", PIPELINES)
def test_a_bad_image_is_left_out_by_whoever_has_it(seen, engine):
    runs = [seen(engine)[0][f"bad {replica}"] for replica in range(2)]

    assert [run["error"] for run in runs] == [None, None]
    assert set(runs[0]["labels"] + runs[1]["labels"]) == {0, 1, 2}
    assert sum(run["skipped"][0] for run in runs) >= 28 * 2 // 4 - 2


@pytest.mark.parametrize("engine", PIPELINES)
def test_the_rest_of_one_pass_is_a_smaller_batch_on_request(seen, engine):
    rest, few = (seen(engine)[0][name] for name in ("rest", "rest of few"))

    assert (rest["labels"], rest["batches"], rest["error"]) == ([0, 1, 2, 3, 4, 5, 6], 2, None)
    assert (few["labels"], few["batches"], few["error"]) == ([0, 1, 2, 3, 4, 5, 6], 1, None)


# Which records a part reads.


def shards(*counts):
    return Dataset("/set", "tfrecord", "train", tuple("abcdefgh"[: len(counts)]), (), None, sum(counts), counts)


def test_a_part_is_one_run_of_records_over_few_files():
    """Of 5 + 1 + 4 images, in blocks of 2: positions 0 1, 4 5, 8 9 are the first part's."""
    found = [records.pieces(shards(5, 1, 4), records.Part(index, 2, 2), 0, None) for index in range(2)]

    assert found == [
        [("/set/a", 0, 5, True), ("/set/b", 0, 1, True)],
        [("/set/c", 0, 4, True)],
    ]


def test_parts_change_their_size_from_epoch_to_epoch_so_that_none_falls_behind():
    """3 images in blocks of 2 for two parts: positions 0 1 | 2, then 3 | 4 5 are those of parts 0 1 | 0 and so on."""
    sizes = [
        [
            sum(
                piece.stop - piece.first
                for piece in records.pieces(shards(2, 1), records.Part(part, 2, 2), epoch, None)
            )
            for part in range(2)
        ]
        for epoch in range(4)
    ]

    assert sizes == [[2, 1], [2, 1], [1, 2], [1, 2]]


@pytest.mark.parametrize("counts", [(7,), (1, 0, 3), (100, 1, 30, 999)])
@pytest.mark.parametrize("parts, block", [(1, 1), (2, 3), (16, 64)])
def test_the_pieces_of_all_parts_are_every_record_once(counts, parts, block):
    for epoch in range(3):
        draw = [np.random.default_rng(epoch) for _ in range(parts)]
        found = [
            piece
            for index in range(parts)
            for piece in records.pieces(shards(*counts), records.Part(index, parts, block), epoch, draw[index])
        ]
        every = Counter((piece.path, number) for piece in found for number in range(piece.first, piece.stop))

        assert set(every.values()) == {1}
        assert len(every) == sum(counts)
        assert sum(piece.last for piece in found) == sum(1 for count in counts if count)


def test_a_file_that_changed_since_it_was_counted_is_a_fault():
    piece = records.Piece("/set/a", 2, 5, True)

    assert records.miscounted(piece, 5) is None
    assert "holds 4 images, and was counted to hold 5" in str(records.miscounted(piece, 4))
    assert "holds more than 5 images, and was counted to hold 5" in str(records.miscounted(piece, 6))
