"""Cases of real images whose answers are known: networks made by hand, on pictures of one colour each.

One network names the colour, and some pictures stand in another class's folder; another says class 2, whatever it sees.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

import numpy as np
import picture_sets
from suite import Result, Suite

from bench import workloads

REAL = ("--model=resnet8", "--data=real", "--data-workers=1", "--benchmark-json=run.json")
SMALL = (*REAL, "--backend=onnxruntime", "--image-size=16", "--batch-size=4")
# Red, green, blue and what is opposite of blue, red, green.
COLOURS = picture_sets.COLOURS[:6]
# Validation images of each class, 24 in all; so many of them have the next class's colour.
COUNTS = (1, 2, 6, 3, 4, 8)
MISPLACED = (0, 1, 2, 3, 4, 5)
# Of the network that says class 2: the likeliest first is 2, 4, 1, 0, 5, 3.
BIASES = (3, 4, 6, 0, 5, 2)
GONE_S = 20.0

Records = Dict[str, Dict[str, Any]]


def network(norm_type: str) -> Dict[str, Any]:
    """The weights of a resnet8 that passes each colour on, and tells nothing of it: all else is zero.

    A bias of 0.1 in every block keeps relus away from zero, where the gradient that is checked has a kink.
    """
    module = workloads.load("resnet8")
    (size, *_) = workloads.named_sizes(module).values()
    size = {**{name: size[name] for name in module.dimensions}, "image_size": 16, "classes": 6, "norm_type": norm_type}
    graph = workloads.record(module, module.canonical(size), 1, "inference")
    found = {weight.name: np.zeros(weight.shape, np.float32) for weight in graph.weights}
    for name, array in found.items():
        if name.endswith("bias") and not name.startswith("fc"):
            array[:] = 0.1
        if name.endswith("running_var") or (array.ndim == 1 and name.endswith(("bn1.weight", "downsample.1.weight"))):
            array[:] = 1
        if name.endswith("downsample.0.weight"):
            array[range(6), range(6)] = 1
    found["conv1.weight"][range(3), range(3), 1, 1] = 1
    found["conv1.weight"][range(3, 6), range(3), 1, 1] = -1
    return found


def naming_colours(norm_type: str) -> Dict[str, Any]:
    """Weights that name the colour: the share of each light, against it where the colour lacks it."""
    found = network(norm_type)
    for label, colour in enumerate(COLOURS):
        signs = np.where(np.array(colour) > 100, 1, -1)
        found["fc.weight"][label, :6] = [*signs, *-signs]
    return found


def saying_two() -> Dict[str, Any]:
    found = network("batch")
    found["fc.bias"][:] = BIASES
    return found


def written_weights(folder: Path) -> Dict[str, str]:
    """Files of weights, by what they do."""
    made = {"colour": naming_colours("batch"), "colour without norms": naming_colours("none"), "two": saying_two()}
    for name, arrays in made.items():
        np.savez(str(folder / f"{name}.npz"), **arrays)
    return {name: str(folder / f"{name}.npz") for name in made}


def write_sets(root: Path) -> None:
    """Sets of pictures, each a folder."""
    colours = [picture_sets.plain(colour) for colour in COLOURS]
    validation = [
        (label, colours[(label + 1) % 6] if number < misplaced else colours[label])
        for label, (count, misplaced) in enumerate(zip(COUNTS, MISPLACED))
        for number in range(count)
    ]
    train = [(label, colours[label]) for label in range(6)] * 2
    for name, images in {"colours": train, "one bad": [*train, (5, b"this is no image")]}.items():
        picture_sets.write_folder(root / name / "train", images)
        picture_sets.write_folder(root / name / "validation", validation)
    # The first and the last cannot be read.
    picture_sets.write_folder(root / "two bad", [(0, b"no"), *validation, (5, b"no")])
    for name, first_label in {"tfrecord": 1, "tfrecord from 0": 0}.items():
        picture_sets.write_tfrecords(root / name, validation, first_label=first_label)
        for path in (root / name).iterdir():
            path.rename(path.with_name(path.name.replace("train", "validation")))
    picture_sets.write_tars(root / "webdataset", validation)
    picture_sets.write_folder(root / "twelve classes", [(label, colours[label % 6]) for label in range(12)])
    picture_sets.write_folder(root / "huge", [(label, huge()) for label in (0, 1)] * 2)
    (root / "pictures").mkdir()
    for number, (_, data) in enumerate(validation):
        (root / "pictures" / f"{number:02}.{picture_sets.suffix(data)}").write_bytes(data)
    (root / "empty").mkdir()
    (root / "other format" / "cats").mkdir(parents=True)
    (root / "other format" / "cats" / "cat.webp").write_bytes(b"RIFF")
    (root / "a file").write_bytes(b"")


def huge() -> bytes:
    """A JPEG of 1600 x 1200 of noise, which takes some 30 ms to decode."""
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (1200, 1600, 3), dtype=np.uint8)
    return picture_sets.encoded(Image.fromarray(pixels), "JPEG", quality=90)


def records(suite: Suite, name: str = "run.json") -> Records:
    """What a run recorded, by case: mode, batch size and backend."""
    found = [entry["extra_info"] for entry in suite.read(name)["benchmarks"]]
    return {f"{one['mode']} b{one['batch_size']} {one['backend']}": one for one in found}


def passed(suite: Suite, *args: str) -> Records:
    result = suite.run(*args)
    assert result.returncode == 0, result.text
    return records(suite)


def outcome(result: Result, case: str) -> str:
    """PASSED or FAILED of the one case whose id has these words, of a run with -rA."""
    (found,) = [word for name, word in result.outcomes().items() if all(part in name for part in case.split())]
    return found


def told_in_one_line(result: Result, what: str) -> bool:
    """Whether failures are lines of `<id>: <what>`, and no traceback."""
    return "Traceback" not in result.text and f"cpu: {what}" in result.text
