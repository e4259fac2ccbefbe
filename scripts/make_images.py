"""Generate a set of images in place of ImageNet: python -m scripts.make_images --images 1000 --out DIR

Formats: folder (DIR/<class>/*.jpg), tfrecord (train-*-of-*, labels from 1) and webdataset (*.tar).
The set is written to a temporary folder next to DIR and then renamed. DIR must be empty or not exist.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path
from typing import Callable, List, Optional, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.cases.errors import Unavailable
from bench.images import generated
from bench.images.dataset import FORMATS

EVERY_S = 0.5


def main(arguments: Optional[List[str]] = None) -> int:
    """Write the set. Returns exit code 0 after success, 1 after an error, 130 after Ctrl-C."""
    options = parser().parse_args(arguments)
    width, height = options.size
    out = Path(options.out)
    start = time.monotonic()
    try:
        generated.make(
            out,
            images=options.images,
            classes=options.classes,
            width=width,
            height=height,
            format=options.format,
            seed=options.seed,
            tell=progress(options.images),
        )
    except KeyboardInterrupt:
        print(f"\ninterrupted: {out} is as it was before, nothing of it was written", file=sys.stderr)
        return 130
    except (ValueError, Unavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"\nerror: {error.filename or out}: {error.strerror}; {out} is as it was before", file=sys.stderr)
        return 1
    print(f"{options.images} images in {out}, {time.monotonic() - start:.1f} s")
    return 0


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64, metavar="N", help="number of images (default: %(default)s)")
    parser.add_argument("--classes", type=int, default=8, metavar="K", help="number of classes (default: %(default)s)")
    parser.add_argument("--size", type=size, default="500x375", metavar="WxH", help="pixels (default: %(default)s)")
    parser.add_argument("--format", choices=FORMATS, default="folder", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    parser.add_argument("--out", required=True, metavar="DIR", help="an empty folder, or a new one")
    return parser


def size(text: str) -> Tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r}; width x height in pixels is needed, as 500x375")
    return int(match[1]), int(match[2])


def progress(images: int) -> Callable[[int], None]:
    """A function that shows the number of images: on a terminal in one changing line, else in one line at the end."""
    last = [0.0]

    def tell(count: int) -> None:
        now = time.monotonic()
        if count == images or (sys.stderr.isatty() and now - last[0] >= EVERY_S):
            last[0] = now
            print(f"\r{count}/{images} images", end="\n" if count == images else "", file=sys.stderr, flush=True)

    return tell


if __name__ == "__main__":
    sys.exit(main())
