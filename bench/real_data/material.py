"""The images and weights of a case, and the checks on them that need no framework.

Importing this module does not import numpy: the harness uses it during collection.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Callable, Dict, Optional, Tuple

from bench.cases.case import Case, Settings
from bench.cases.errors import Refused
from bench.cases.precision import PRECISIONS
from bench.graph import Graph
from bench.images import Dataset, find, pipelines
from bench.images.dataset import format_of
from bench.images.faults import require_packages
from bench.workloads import host_pipeline

Tell = Callable[[str], None]
# Classes of the generated images, unless the network has fewer.
GENERATED_CLASSES = 8


def splits(case: Case, settings: Settings) -> Tuple[str, ...]:
    """The splits that a case reads; none if its data are not real images."""
    pipeline_only = case.workload == host_pipeline.NAME
    if settings.data != "real" and not pipeline_only:
        return ()
    if case.mode != "training":
        return ("validation",)
    scored = bool(settings.recipe.epochs) and settings.validation and not pipeline_only
    return ("train", "validation") if scored else ("train",)


def require(case: Case, settings: Settings) -> None:
    """Raise ValueError, in one line, if the folder lacks the images that a case needs."""
    if settings.data_dir:
        for split in splits(case, settings):
            _dataset(case, settings, split)


def require_readers(case: Case, settings: Settings) -> None:
    """Raise Unavailable if a package that reads the images of a case is missing."""
    for split in splits(case, settings):
        kind = format_of(settings.data_dir, split) if settings.data_dir else "folder"
        require_packages(kind, pipeline_of(case))


def pipeline_of(case: Case) -> str:
    """The input pipeline of a case's framework; torch's if it has none."""
    return case.backend if case.backend in pipelines.names() else "torch"


def images(case: Case, settings: Settings, tell: Tell) -> Dict[str, Dataset]:
    """The counted images of a case by split: those of --data-dir, or a small generated set in the cache folder.

    Raises ValueError, in one line, and Unavailable if a package is missing.
    """
    from bench.images import generated
    from bench.images.counting import counted

    require_readers(case, settings)
    datasets = {}
    for split in splits(case, settings):
        if settings.data_dir:
            datasets[split] = counted(_dataset(case, settings, split), settings.data_errors, tell)
        else:
            datasets[split] = generated.cached(classes=min(GENERATED_CLASSES, _classes(case) or GENERATED_CLASSES))
    return datasets


def require_files(graph: Graph, case: Case, settings: Settings) -> Optional[str]:
    """Raise Refused for weights that do not fit the graph, and for a folder that is not writable.

    Returns how the names of the weights in the file differ from those of the graph; None if they do not.
    """
    note = None
    if settings.weights:
        from bench.graph import weight_files

        try:
            note = weight_files.load(Path(settings.weights), graph, PRECISIONS[case.precision].weights).note or None
        except (OSError, ValueError) as error:
            raise Refused(str(error).splitlines()[0]) from None
    if settings.export_onnx:
        try:
            Path(settings.export_onnx).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Refused(f"--export-onnx {settings.export_onnx}: {error.strerror}") from None
        if not os.access(settings.export_onnx, os.W_OK):
            raise Refused(f"--export-onnx {settings.export_onnx}: it cannot be written to")
    return note


def _dataset(case: Case, settings: Settings, split: str) -> Dataset:
    labelled = case.mode != "inference" and case.workload != host_pipeline.NAME
    try:
        return find(
            settings.data_dir, split, classes=_classes(case), labelled=labelled, first_label=settings.first_label
        )
    except ValueError as error:
        hint = "; --no-validation counts no hits" if case.mode == "training" and split == "validation" else ""
        raise ValueError(f"{error}{hint}") from None


def _classes(case: Case) -> Optional[int]:
    classes = case.dimensions.get("classes")
    return None if classes is None else int(classes)
