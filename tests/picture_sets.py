"""Small sets of images in every format, whole or broken in one place. Needs Pillow when called."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np

# So distinct that labels can be told from pixels, resampled or not.
COLOURS = [
    (250, 0, 0),
    (0, 250, 0),
    (0, 0, 250),
    (250, 250, 0),
    (0, 250, 250),
    (250, 0, 250),
    (9, 9, 9),
    (120, 120, 120),
]


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(colour, size=(48, 36), kind="PNG"):
    """An image of one colour."""
    from PIL import Image

    return encoded(Image.new("RGB", size, colour), kind)


def two_colours(kind="PNG"):
    """512 x 256, red on the left and blue on the right: scaled by 1 for an image size of 224."""
    from PIL import Image

    pixels = np.zeros((256, 512, 3), np.uint8)
    pixels[:, :256], pixels[:, 256:] = (255, 0, 0), (0, 0, 255)
    return encoded(Image.fromarray(pixels), kind)


def smooth(number):
    """A JPEG of 500 x 375 without fine detail."""
    from PIL import Image

    down, across = np.mgrid[:375, :500]
    waves = [np.sin(across / (40 + 10 * number)), np.cos(down / 50 + number), np.sin((across + down) / 60)]
    return encoded(Image.fromarray((128 + 100 * np.stack(waves, -1)).astype(np.uint8)), "JPEG", quality=90)


def noisy(seed=0):
    """A JPEG of 300 x 200 of noise, of which every part takes bytes."""
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), "JPEG")


def huge_png():
    from PIL import Image

    return encoded(Image.new("1", (9000, 9000)))


def huge_jpeg():
    """A JPEG whose header says 60000 x 60000."""
    data = bytearray(noisy())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 60000, 60000)
    return bytes(data)


def png_of_16_bits(colour, size=(48, 36)):
    """An RGB image of 16 bits, which Pillow does not write."""
    row = b"\0" + struct.pack(">3H", *colour) * size[0]
    header = struct.pack(">2I5B", *size, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(row * size[1])), (b"IEND", b"")]
    packed = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def suffix(image):
    return "png" if image.startswith(b"\x89PNG") else "jpg"


def write_folder(root, images):
    """`images` are (label, bytes); there is a class for every label up to the greatest."""
    for number, (label, data) in enumerate(images):
        folder = Path(root) / f"class{label}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:03}.{suffix(data)}").write_bytes(data)


def write_tfrecords(root, images, shards=2, first_label=1):
    records = [
        {b"image/encoded": data, b"image/class/label": label + first_label, b"image/format": b"x"}
        for label, data in images
    ]
    write_records(root, [{name.decode(): value for name, value in record.items()} for record in records], shards)


def write_records(root, examples_of, shards=2):
    from bench.images import tf_example, tfrecords

    Path(root).mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        with (Path(root) / f"train-{shard:05}-of-{shards:05}").open("wb") as file:
            for values in examples_of[shard::shards]:
                tfrecords.write(file, tf_example.example(values))


def write_tars(root, images, shards=2):
    members = [[(suffix(data), data), ("cls", str(label).encode())] for label, data in images]
    write_members(root, members, shards)


def write_members(root, samples, shards=2):
    """`samples` are lists of (suffix, bytes); a key is the number of its sample."""
    Path(root).mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        with tarfile.open(str(Path(root) / f"part-{shard:03}.tar"), "w") as tar:
            for number in range(shard, len(samples), shards):
                for kind, data in samples[number]:
                    member = tarfile.TarInfo(f"{number:04}.{kind}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


WRITERS = {"folder": write_folder, "tfrecord": write_tfrecords, "webdataset": write_tars}


def labelled(count=8):
    """One image per class, each of its own colour."""
    return [(label, plain(COLOURS[label])) for label in range(count)]


def files(root):
    return sorted(Path(folder) / name for folder, _, names in os.walk(str(root)) for name in names)


def edit(path, change):
    """Replace what a file holds by what `change` makes of it."""
    path.write_bytes(change(path.read_bytes()))


def flip(at):
    """The change of one byte; from the end where `at` is negative."""
    return lambda data: data[:at] + bytes([data[at] ^ 0xFF]) + data[at:][1:]
