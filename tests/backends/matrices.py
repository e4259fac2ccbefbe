"""One backend on small layers and networks, in one process: `python matrices.py BACKEND FOLDER [thorough]`.

Writes what came of each case, by its key: layers.json and then networks.json. For `models`, which is no backend:
models.json, of the ONNX models. conftest.py starts it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import backend_matrix
import cnn_matrix


def write(path, answer):
    """The file is there when it is whole."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(answer))
    part.rename(path)


def main(engine, folder, *thorough):
    if engine == "models":
        write(Path(folder) / "models.json", backend_matrix.models())
        return
    write(Path(folder) / "layers.json", backend_matrix.answers(engine, bool(thorough)))
    write(Path(folder) / "networks.json", cnn_matrix.answers(engine, bool(thorough)))


if __name__ == "__main__":
    main(*sys.argv[1:])
