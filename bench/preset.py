"""Presets: the settings of published CNN benchmarks, by the names that they had there.

Each file in presets/ is one source. An entry's `options` are ours, named as on the command line with underscores,
with the text that a user would type, or true for a flag. What only an IPU has keeps its original name in `ipu`;
`ignored` says of every other setting why it has no place here. The command line wins over a preset, and a preset
over a default.
"""

from __future__ import annotations

import difflib
import functools
import json
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple, Union

FOLDER = Path(__file__).resolve().parent / "presets"
WIDTH = 100
COLUMNS = ("name", "source", "model", "mode", "batch", "precision")
SOURCE = ("name", "repository", "release", "file", "date", "note")
ENTRY = ("options", "ipu", "ignored", "note")
# What a preset may set: what is computed and how it is trained, not where and how long it is measured.
OPTIONS = tuple(
    """
    model model_size mode precision batch_size replicas batches_per_step steps data
    image_size norm_type norm_num_groups enable_fast_groupnorm norm_eps group_dim expand_ratio padding_rule classes
    input_image_padding eight_bit_io normalization_location half_res_training
    half_partial pipeline_splits min_latency random_weights
    optimiser momentum rmsprop_decay optimiser_epsilon weight_decay
    learning_rate base_learning_rate_exponent lr_schedule warmup_epochs lr_epoch_decay lr_decay lr_drops epochs
    loss_scaling label_smoothing label_smoothing_definition
    mixup_alpha cutmix_lambda cutmix_lambda_low cutmix_lambda_high cutmix_disable_prob
    gradient_accumulation recompute recompute_layers weight_avg_exp weight_avg_n stable_norm
    """.split()
)


@dataclass(frozen=True)
class Preset:
    """The settings behind one name; `source` is framework and release, `file` where exactly they were."""

    name: str
    source: str
    file: str
    options: Mapping[str, Union[str, bool]]
    ipu: Mapping[str, Any]
    ignored: Mapping[str, str]
    note: str


def names() -> Tuple[str, ...]:
    """Every preset, source by source, in the order of its file."""
    return tuple(_all())


def load(name: str) -> Preset:
    """Return the preset. Raises ValueError with the choices, and the nearest, when there is none of that name."""
    if name not in _all():
        raise ValueError(f"no preset {_unknown(name, names())}")
    return _all()[name]


def table() -> str:
    """Return every preset as text: a line each, its note below, at most 100 columns."""
    presets = [load(name) for name in names()]
    rows = [COLUMNS, *(_row(preset) for preset in presets)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    found = [lines[0], "-" * len(lines[0])]
    for line, preset in zip(lines[1:], presets):
        found += [line, *textwrap.wrap(preset.note, WIDTH, initial_indent="    ", subsequent_indent="    ")]
    return "\n".join(found)


def read(path: Path) -> List[Preset]:
    """Return the presets of one file. Raises ValueError, naming file and preset, for a key that is not known."""
    whole = json.loads(path.read_text())
    _require_known(path.name, "key", whole, ("source", "presets"))
    source = whole["source"]
    _require_known(path.name, "key of the source", source, SOURCE)
    place = ", ".join(source[key] for key in ("repository", "release", "file", "date"))
    found = []
    for name, entry in whole["presets"].items():
        where = f"{path.name}, preset {name}"
        _require_known(where, "key", entry, ENTRY)
        _require_known(where, "option", entry["options"], OPTIONS)
        found.append(Preset(name, source["name"], place, **entry))
    return found


@functools.lru_cache(maxsize=None)
def _all() -> Dict[str, Preset]:
    found: Dict[str, Preset] = {}
    for path in sorted(FOLDER.glob("*.json")):
        for preset in read(path):
            if preset.name in found:
                raise ValueError(f"{path.name}: preset {preset.name} is {found[preset.name].file} as well")
            found[preset.name] = preset
    return found


def _row(preset: Preset) -> Tuple[str, ...]:
    options = preset.options
    return (
        preset.name,
        preset.source,
        *(str(options.get(key, "")) for key in ("model", "mode", "batch_size", "precision")),
    )


def _require_known(where: str, kind: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in given:
        if key not in known:
            raise ValueError(f"{where}: no {kind} {_unknown(key, known)}")


def _unknown(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"{name!r}{hint}; there are {', '.join(known)}"
