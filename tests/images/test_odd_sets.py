"""Unusual sets: both input pipelines do the same with each of them."""

from __future__ import annotations

import odd_sets
import pytest
from odd_sets import ODD
from test_image_pipelines import PIPELINES, asker

from bench.images import BadImage, find
from bench.images.counting import counted

pytest.importorskip("PIL")
pytest.importorskip("google_crc32c")

EVERY = pytest.mark.parametrize("name", ODD)
BOTH = pytest.mark.parametrize("engine", PIPELINES)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    root = tmp_path_factory.mktemp("odd")
    runs = {}
    for name, odd in ODD.items():
        odd_sets.write(root / name, name)
        for errors in ("stop", "skip"):
            asked = {"batch_size": 1, "workers": 0, "errors": errors}
            runs[f"{name}, {errors}"] = {"root": str(root / name), "find": odd.find, "open": asked}
        asked = {"batch_size": 2, "workers": 2, "errors": "skip", "training": True, "repeat": True}
        if odd.labels:
            runs[f"{name}, training"] = {"root": str(root / name), "find": odd.find, "open": asked, "most": 12}
    return asker(dict.fromkeys(PIPELINES, runs), tmp_path_factory)


@BOTH
@EVERY
def test_a_set_is_read_or_stops_with_one_reason(seen, engine, name):
    run = seen(engine)[0][f"{name}, stop"]

    if ODD[name].refused:
        assert ODD[name].refused in run["error"][1]
        assert "\n" not in run["error"][1]
    else:
        assert (run["error"], run["labels"], run["skipped"]) == (None, list(ODD[name].labels), [0, None])


@BOTH
@EVERY
def test_skipping_leaves_out_what_is_bad_and_counts_it(seen, engine, name):
    odd, run = ODD[name], seen(engine)[0][f"{name}, skip"]

    if odd.labels:
        assert (run["error"], run["labels"], run["skipped"][0]) == (None, list(odd.labels), odd.skipped)
        assert odd.refused in (run["skipped"][1] or "")
    else:
        assert odd.refused in run["error"][1]
        assert "\n" not in run["error"][1]


@EVERY
def test_both_pipelines_give_the_same_images_labels_and_order(seen, name):
    for run in ("stop", "skip", "training"):
        torch, tensorflow = (seen(engine)[0].get(f"{name}, {run}", {}) for engine in ("torch", "tensorflow"))
        same = ("labels", "digest") if not torch.get("error") else ()
        assert [torch.get(key) for key in same] == [tensorflow.get(key) for key in same]
        assert torch.get("error") == tensorflow.get("error")


@pytest.mark.parametrize("name", [name for name, odd in ODD.items() if "b.tar: " in odd.refused])
def test_a_shard_that_is_none_ends_the_count(tmp_path, monkeypatch, name):
    """So it stops before anything is compiled."""
    monkeypatch.setenv("LAYERBENCH_CACHE", str(tmp_path / "cache"))
    odd_sets.write(tmp_path / "set", name)

    with pytest.raises(BadImage, match=r"b\.tar: ") as caught:
        counted(find(tmp_path / "set"))
    assert ODD[name].refused in str(caught.value)
