"""The bytes of TFRecords and images, by hand; the faults of whole sets are in test_image_faults.py."""

from __future__ import annotations

import io
import struct

import picture_sets
import pytest

from bench.images import BadImage, decoding, epoch, find, tars, tf_example, tfrecords
from bench.images.counting import counted

pytest.importorskip("PIL")
pytest.importorskip("google_crc32c")


def test_a_checksum_is_the_masked_crc_32c():
    """CRC-32C of 123456789 is 0xE3069283, a published check value."""
    rotated = (0xE3069283 >> 15 | 0xE3069283 << 17) & 0xFFFFFFFF

    assert tfrecords.masked(b"123456789") == (rotated + 0xA282EAD8) & 0xFFFFFFFF


def test_an_example_comes_back_as_it_went():
    values = {"image/encoded": b"\x00\xff" * 300, "image/class/label": 1000, "negative": -1, "empty": b""}

    got = tf_example.parse(tf_example.example(values))

    assert got == {name: [value] for name, value in values.items()}


def test_an_example_of_other_writers_is_read():
    """Integers one by one instead of packed, floats, and fields that nobody knows."""
    plain = b"\x0a\x0a\x0a\x01a\x12\x05\x1a\x03\x08\xac\x02"
    floats = b"\x0a\x0d\x0a\x01f\x12\x08\x12\x06\x0a\x04" + struct.pack("<f", 1.5)
    features = plain + floats + b"\x78\x05"

    got = tf_example.parse(b"\x0a" + bytes([len(features)]) + features)

    assert got == {"a": [300], "f": []}


@pytest.mark.parametrize(
    "data", [b"\xff", b"\x0a\x05\x0a", b"\x0a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80", b"\x0b"]
)
def test_bytes_that_are_no_example_are_refused(data):
    with pytest.raises(ValueError, match=r"no tf.train.Example"):
        tf_example.parse(data)


def test_records_that_are_not_wanted_are_jumped_over_unread(tmp_path):
    path = tmp_path / "train-0-of-1"
    with path.open("wb") as file:
        for data in (b"one", b"two", b"three"):
            tfrecords.write(file, data)
    # Damage in a record that nobody reads.
    picture_sets.edit(path, picture_sets.flip(13))

    assert list(tfrecords.records(str(path), lambda number: number == 1)) == [None, b"two", None]


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
@pytest.mark.parametrize("kind", sorted(picture_sets.WRITERS))
def test_parts_make_the_whole(tmp_path, monkeypatch, kind, parts):
    """Of 8 images in 2 files, in blocks of 2."""
    monkeypatch.setenv("LAYERBENCH_CACHE", str(tmp_path / ".cache"))
    picture_sets.WRITERS[kind](tmp_path, picture_sets.labelled())
    dataset = counted(find(tmp_path))

    got = [
        [found.label for found in epoch.epoch(dataset, epoch.Part(index, parts, 2), 0, None)] for index in range(parts)
    ]

    assert sorted(label for part in got for label in part) == [0, 1, 2, 3, 4, 5, 6, 7]
    if parts == 3:
        assert [len(part) for part in got] == [4, 2, 2]


def test_a_tar_is_read_by_key_whatever_else_is_in_it(tmp_path):
    image = picture_sets.plain((1, 2, 3))
    members = [[("json", b"{}"), ("png", image), ("cls", b"7\n")], [("txt", b"a note")]]
    picture_sets.write_members(tmp_path, members, shards=1)

    path = str(tmp_path / "part-000.tar")
    got = list(tars.samples(path, lambda number: True))

    assert got == [tars.Sample(f"{path}, key 0000", image, 7)]


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_more_pixels_than_allowed_are_refused(monkeypatch, kind):
    data = picture_sets.plain((1, 2, 3), (50, 20), kind)

    monkeypatch.setattr(decoding, "MAX_PIXELS", 1000)
    assert decoding.decode(data, "x").size == (50, 20)

    monkeypatch.setattr(decoding, "MAX_PIXELS", 999)
    with pytest.raises(BadImage, match=r"^x: 50 x 20 pixels; at most 999 are allowed$"):
        decoding.decode(data, "x")


@pytest.mark.parametrize("kind", ["GIF", "BMP", "WEBP"])
def test_other_formats_are_refused_whatever_they_are_called(kind):
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, kind)

    with pytest.raises(BadImage, match=r"x\.jpg: not a JPEG or PNG image"):
        decoding.decode(buffer.getvalue(), "x.jpg")
