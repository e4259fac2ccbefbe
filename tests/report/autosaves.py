"""Folders of autosaves, made by hand."""

from __future__ import annotations

import json

from stored_files import content, record

DAY_S = 86400.0
START_S = 1.7e9


def run_file(folder, number, records, commit="", **changed):
    """Write the run of day `number`. Each record starts a second after the one before. Returns the path."""
    folder.mkdir(parents=True, exist_ok=True)
    start_s = START_S + number * DAY_S
    timed = [{**each, "started_s": each["started_s"] or start_s + place} for place, each in enumerate(records)]
    made = content(timed, commit_info={"id": commit or f"{number:040x}", "branch": "main", "dirty": False}, **changed)
    for entry in made["benchmarks"]:
        median_s = entry["extra_info"]["step_median_s"]
        entry["stats"] = {"q1": 0.99 * median_s, "q3": 1.02 * median_s} if median_s else {}
    path = folder / f"{number:04}_run.json"
    path.write_text(json.dumps(made))
    return path


def case(rate, workload="lstm", backend="torch", **changed):
    """A record with what a series is told apart by."""
    usual = {"graph": f"graph of {workload}", "settings": "bbbb", "machine": {"cpu": "Paper CPU", "cores": 2}}
    facts = {"host": "paper", "libraries": {"numpy": "1"}, "python_version": "3.11"}
    return record(workload, backend, rate, **{**usual, **facts, **changed})


def wave(number, level=1000.0):
    """A rate that goes up and down by one percent from run to run."""
    return level * (1.01 if number % 2 else 0.99)
