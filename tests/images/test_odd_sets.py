"""Unusual sets: both input pipelines do the same with each of them."""

from __future__ import annotations

import odd_sets
import pytest
from odd_sets import ODD
from test_image_pipelines import PIPELINES, asker, thorough_unless

from bench.images import BadImage, find
from bench.images.counting import counted

pytest.importorskip("PIL")
pytest.importorskip("google_crc32c")

RUNS = ("stop", "skip", "training")
PLACES = {name: place for place, name in enumerate(ODD)}


# Every pipeline takes its samples from one reader, and a graph takes TensorFlow a third of a second. So TensorFlow's
# stops at every second set and skips in the others, and trains on every third. --thorough has all.
def is_quick(engine, name, run):
    every, first = {"stop": (2, 0), "skip": (2, 1), "training": (3, 0)}[run]
    return engine != "tensorflow" or PLACES[name] % every == first


def every(run):
    """All pipelines and sets, as parameters of a test about such runs."""
    pairs = [
        pytest.param(engine, name, marks=thorough_unless(is_quick(engine, name, run)), id=f"{name}-{engine}")
        for name in ODD
        for engine in PIPELINES
    ]
    return pytest.mark.parametrize("engine, name", pairs)


def runs_of(root, engine, thorough):
    runs = {}
    for name, odd in ODD.items():
        opened = {run: {"batch_size": 1, "workers": 0, "errors": run} for run in ("stop", "skip")}
        if odd.labels:
            opened["training"] = {"errors": "skip", "training": True, "repeat": True}
        for run, asked in opened.items():
            if thorough or is_quick(engine, name, run):
                most = {"most": 12} if run == "training" else {}
                runs[f"{name}, {run}"] = {"root": str(root / name), "find": odd.find, "open": asked, **most}
    return runs


@pytest.fixture(scope="module")
def seen(pytestconfig, tmp_path_factory):
    root = tmp_path_factory.mktemp("odd")
    for name in ODD:
        odd_sets.write(root / name, name)
    thorough = pytestconfig.option.thorough
    return asker({engine: runs_of(root, engine, thorough) for engine in PIPELINES}, tmp_path_factory)


@every("stop")
def test_a_set_is_read_or_stops_with_one_reason(seen, engine, name):
    run = seen(engine)[0][f"{name}, stop"]

    if ODD[name].refused:
        assert ODD[name].refused in run["error"][1]
        assert "\n" not in run["error"][1]
    else:
        assert (run["error"], run["labels"], run["skipped"]) == (None, list(ODD[name].labels), [0, None])


@every("skip")
def test_skipping_leaves_out_what_is_bad_and_counts_it(seen, engine, name):
    odd, run = ODD[name], seen(engine)[0][f"{name}, skip"]

    if odd.labels:
        assert (run["error"], run["labels"], run["skipped"][0]) == (None, list(odd.labels), odd.skipped)
        assert odd.refused in (run["skipped"][1] or "")
    else:
        assert odd.refused in run["error"][1]
        assert "\n" not in run["error"][1]


@pytest.mark.parametrize("name", ODD)
def test_both_pipelines_give_the_same_images_labels_and_order(seen, name):
    both = seen("torch")[0].keys() & seen("tensorflow")[0].keys() & {f"{name}, {run}" for run in RUNS}
    assert both
    for run in both:
        torch, tensorflow = (seen(engine)[0][run] for engine in ("torch", "tensorflow"))
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
