"""Write tests/fakes/facts.json, the facts about the IPU API, from the full description of that API.

    python scripts/ipu_facts.py PATH_TO_JSON [OUTPUT]

The fakes need only the names, signatures and values of the description. A parameter is `"name"`, `["name", default]` or
`["name", {"expr": "text"}]`. Its name starts with `/` if it is positional only, with `!` if it is keyword only,
with `*` or `**` if it takes the remaining arguments.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

FACTS = Path(__file__).resolve().parent.parent / "tests" / "fakes" / "facts.json"
SECTIONS = (
    "versions absent errors environment command_line poplar_engine_options poplar_runtime_options poplibs_options "
    "popdist onnx_support popart_session_option_keys_via_poptorch"
).split()
COPIED_KEYS = (
    "type",
    "default",
    "writable",
    "attributes",
    "dict_keys",
    "target",
    "deprecated",
    "members",
    "bases",
    "raises",
)
MARKS = {"POSITIONAL_ONLY": "/", "KEYWORD_ONLY": "!", "VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}
OPTIONS = "poptorch.Options"
FREEZING = ("poptorch.DataLoader", "poptorch.inferenceModel", "poptorch.trainingModel")

Entry = Dict[str, Any]

# Facts from the guide to the description that its entries lack.
EXTRA_ENTRIES: List[Entry] = [
    {"name": "popart.Builder.aiGraphcore", "kind": "property", "returns": "popart.AiGraphcoreOpset1"},
    {"name": "ipu_tensorflow_addons.keras.layers.LSTM", "kind": "alias", "target": "PopnnLSTM"},
    {"name": "ipu_tensorflow_addons.keras.layers.GRU", "kind": "alias", "target": "PopnnGRU"},
]
# Parameters of popdist, whose source is closed. The description has them as prose only.
POPDIST = {
    "popdist.getDeviceId": [["ipus_per_replica", None]],
    "popdist.execute_on_instances": ["instances", "func", "*args", "**kwargs"],
    "popdist.poptorch.Options": ["self", ["!ipus_per_replica", None]],
    "popdist.tensorflow.set_ipu_config": ["config", "ipus_per_replica", ["configure_device", True]],
    "popdist.popart.getDevice": [["!ipus_per_replica", None], ["!connectionType", None]],
}


def parameter(index: int, entry: Entry) -> Any:
    """Return one parameter in the short form."""
    name = MARKS.get(entry["kind"], "") + (entry["name"] or f"arg{index}")
    if "default" in entry:
        return [name, entry["default"]]
    if "default_expr" in entry:
        return [name, {"expr": entry["default_expr"]}]
    assert entry["required"] or entry["kind"].startswith("VAR"), entry
    return name


def parameters(entries: List[Entry]) -> List[Any]:
    return [parameter(index, entry) for index, entry in enumerate(entries)]


def returned(entry: Entry, owners: Dict[str, Entry]) -> Optional[str]:
    """Return the result of a call: "self", "copy", "None", "=parameter" or a class. None if it is unknown."""
    if entry.get("returns_none"):
        return "None"
    returns = entry.get("returns")
    if "returns the same module" in entry.get("note", ""):
        return "=" + str(entry["params"][0]["name"])
    parent = entry["name"].rpartition(".")[0]
    if entry["kind"] != "method" or returns is None:
        return returns
    if entry["name"] == f"{OPTIONS}.clone":
        return "copy"
    setter = parent.startswith(OPTIONS) and returns.startswith("poptorch.")
    return "self" if setter or returns in (parent, owners.get(parent, {}).get("returns")) else returns


def rule(allowed: Any, enums: Dict[str, List[str]]) -> Entry:
    """Return the rule for a value in a form that a program can check."""
    if isinstance(allowed, dict):
        return {"proportions": allowed["keys"]}
    if isinstance(allowed, str):
        low, _, high = allowed.replace(" even", "").partition("..")
        return {"range": [int(low), int(high), 2]} if high else {"min": int(allowed.lstrip(">="))}
    if all(isinstance(value, str) for value in allowed):
        if allowed[0].startswith("torch."):
            return {"dtypes": allowed}
        if allowed[0].endswith("Execution"):
            return {"classes": allowed}
        short = [value.rpartition(".")[2] for value in allowed]
        names = [name for name, members in enums.items() if members == short]
        if names:
            return {"enum": names[0]}
    return {"values": allowed}


def rules(entry: Entry, enums: Dict[str, List[str]]) -> Entry:
    """Return the rules of the parameters of `entry` that have one."""
    allowed = entry["allowed"]
    if isinstance(allowed, dict) and "keys" not in allowed:
        return {name: rule(values, enums) for name, values in allowed.items()}
    first = next(each["name"] for each in entry["params"] if each["name"] != "self")
    return {first: rule(allowed, enums)}


def shorten(entry: Entry, owners: Dict[str, Entry], enums: Dict[str, List[str]]) -> Entry:
    """Return one entry, shortened to what the fakes need."""
    short_entry: Entry = {"name": entry["name"], "kind": entry["kind"]}
    initial = owners.get(entry["name"].rpartition(".")[0], {}).get("initial_values")
    if "params" in entry:
        short_entry["params"] = parameters(entry["params"])
    for old, new in (("overloads", "overloads"), ("init_overloads", "init")):
        if old in entry:
            short_entry[new] = [parameters(overload) for overload in entry[old]]
    if returned(entry, owners) is not None:
        short_entry["returns"] = returned(entry, owners)
    short_entry.update(
        {key: entry[key] for key in COPIED_KEYS if key in entry and not (key == "type" and entry[key] is None)}
    )
    if "allowed" in entry and ("params" in short_entry or "init" in short_entry):
        short_entry["allowed"] = rules(entry, enums)
    elif entry["kind"] == "method" and initial:
        same = {p["name"]: type(initial[p["name"]]).__name__ for p in entry["params"] if p["name"] in initial}
        typed = {name: {"type": text} for name, text in same.items() if text in ("int", "bool", "str")}
        if typed:
            short_entry["allowed"] = typed
    if "case-insensitive" in entry.get("note", ""):
        short_entry["ignore_case"] = True
    if "write" in entry.get("note", "") and entry["kind"] == "attribute":
        short_entry["live"] = True
    if "mixed_into" in entry:
        short_entry["mixed_into"] = entry["mixed_into"]
    if any("contextmanager" in text for text in entry.get("decorators", ())):
        short_entry["context"] = True
    if entry["name"] in FREEZING:
        short_entry["freezes"] = "options"
    if entry["name"] == OPTIONS:
        short_entry["frozen"] = True
    if entry["name"] == "poptorch.set_available_memory":
        short_entry["allowed"] = {"available_memory_proportion": {"proportion": True}}
    return short_entry


def closed(section: Entry) -> List[Entry]:
    """Return entries for popdist, which the description does not have."""
    entries = []
    for name, words in section["functions"].items():
        entry = {"name": name, "kind": "function", "params": POPDIST.get(name, list(words))}
        if name.endswith(".Options"):
            refused = ["useIpuId", "replicationFactor", "Distributed"]
            entry.update(kind="class", bases=[OPTIONS], refuses=refused)
        entries.append(entry)
    return entries


def make(description: Entry) -> str:
    """Return the text of facts.json."""
    entries = description["entries"]
    owners = {entry["name"]: entry for entry in entries}
    enums = {e["name"]: list(e["members"]) for e in entries if e["kind"] == "enum"}
    short = [shorten(entry, owners, enums) for entry in entries]
    meta = description["meta"]
    source = {
        "sdk": meta["sdk"],
        "commits": meta["commits"],
        "licences": meta["licences"],
        "what": "names, parameters, defaults and values of the public API; no source text",
    }
    facts = {"source": source, **{section: description[section] for section in SECTIONS}}
    lines = [f'"{key}": {json.dumps(value)}' for key, value in facts.items()]
    all_entries = sorted(short + EXTRA_ENTRIES + closed(description["popdist"]), key=lambda entry: str(entry["name"]))
    body = ",\n".join(json.dumps(entry) for entry in all_entries)
    return "{\n" + ",\n".join(lines) + ',\n"entries": [\n' + body + "\n]\n}\n"


def main(arguments: List[str]) -> None:
    if not 1 <= len(arguments) <= 2:
        raise SystemExit(re.sub(r"\n\n.*", "", __doc__ or "") + "\n\nusage: ipu_facts.py PATH_TO_JSON [OUTPUT]")
    description = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    output = Path(arguments[1]) if len(arguments) > 1 else FACTS
    output.write_text(make(description), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
