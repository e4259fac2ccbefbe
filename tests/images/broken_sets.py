"""Sets of eight images of which the fourth, or its file, is broken in a way that has a name."""

from __future__ import annotations

import picture_sets as sets_of


def image_of(fault):
    """The fourth image, where that is what is broken."""
    make = {
        "no image": lambda: b"this is no image",
        "cut off": lambda: sets_of.noisy()[:4000],
        "empty": lambda: b"",
        "huge PNG": sets_of.huge_png,
        "huge JPEG": sets_of.huge_jpeg,
        "damaged PNG": lambda: sets_of.flip(60)(sets_of.plain((1, 2, 3))),
    }.get(fault, sets_of.noisy)
    return make()


def write(root, kind, fault):
    images = sets_of.labelled()
    below = -2 if kind == "tfrecord" else -1
    label = {"label too great": 9, "label below 0": below}.get(fault, 3)
    images[3] = (label, image_of(fault))
    {"folder": write_folder, "tfrecord": write_tfrecords, "webdataset": write_tars}[kind](root, images, fault)


def write_folder(root, images, fault):
    sets_of.write_folder(root, images)
    broken = root / "class3" / "003.jpg"
    if fault in ("unreadable", "link to nowhere"):
        broken.unlink()
        # A file that even root cannot read from its beginning.
        broken.symlink_to("/proc/self/mem" if fault == "unreadable" else "nowhere")
    if fault == "folder of that name":
        broken.unlink()
        broken.mkdir()


def write_tfrecords(root, images, fault):
    records = [{"image/encoded": data, "image/class/label": label + 1} for label, data in images]
    if fault == "two labels":
        records[3]["image/class/label"] = [4, 5]
    if fault == "label of bytes":
        records[3]["image/class/label"] = b"4"
    missing = {"no label": "image/class/label", "no image key": "image/encoded"}.get(fault)
    records[3].pop(missing, None)
    sets_of.write_records(root, records)
    file = root / "train-00001-of-00002"
    first = int.from_bytes(file.read_bytes()[:8], "little") + 16
    damage(file, fault, {"checksum": sets_of.flip(first + 500), "length": sets_of.flip(first)})
    if fault == "no example":
        rewritten(file, first)


def rewritten(file, first):
    """Replace the second record by one that is whole and means nothing."""
    from bench.images import tfrecords

    data = file.read_bytes()
    second = int.from_bytes(data[first : first + 8], "little") + 16
    with file.open("wb") as out:
        out.write(data[:first])
        tfrecords.write(out, b"\xff\xff\xff")
        out.write(data[first + second :])


def write_tars(root, images, fault):
    members = [[(sets_of.suffix(data), data), ("cls", str(label).encode())] for label, data in images]
    image, label = members[3]
    members[3] = {
        "no label": [image],
        "label alone": [label],
        "label no number": [image, ("cls", b"cat")],
        "twice": [image, label, label],
    }.get(fault, [image, label])
    sets_of.write_members(root, members)
    # The second image begins after a header and a block each for the first one and its label.
    damage(root / "part-001.tar", fault, {"header": sets_of.flip(4 * 512 + 10)})


def damage(file, fault, changes):
    changes = {**changes, "file cut off": lambda data: data[: data.rindex(b"IEND")], "empty file": lambda data: b""}
    if fault in changes:
        sets_of.edit(file, changes[fault])
    if fault == "unreadable":
        file.unlink()
        file.symlink_to("nowhere")
