"""The commands of five READMEs: write the page, check it, or run the commands for a CPU.

    python -m scripts.readme_commands           write docs/readme-commands.md from docs/readme_commands.json
    python -m scripts.readme_commands --check   check whether the page is up to date
    python -m scripts.readme_commands --run     run the CPU line of every command, one after another

The JSON has the commands of each README of Graphcore's examples, their equivalents for an IPU, for any device and,
smaller, for a CPU, and the cases that these select. A `size` is a set of facts; `size_name` builds its name.
docs/original_settings.json has the settings of the original programs.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Union

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from scripts import readme_runs  # noqa: E402
from scripts.readme_runs import Line  # noqa: E402

DATA = ROOT / "docs" / "readme_commands.json"
SETTINGS = ROOT / "docs" / "original_settings.json"
PAGE = ROOT / "docs" / "readme-commands.md"
SIDES = ("ipu", "ours", "cpu")
WIDTH = 116
# The default of each fact. The name of a size has only facts with other values, in this order.
DEFAULTS: Dict[str, Any] = {
    "group_dim": 1,
    "expand_ratio": 6,
    "norm_type": "batch",
    "norm_num_groups": None,
    "enable_fast_groupnorm": False,
    "norm_eps": "family",
    "padding_rule": "symmetric",
    "input_image_padding": False,
    "eight_bit_io": False,
    "normalization_location": "host",
    "classes": None,
}
LETTERS = {
    "group_dim": "g{}",
    "expand_ratio": "e{}",
    "norm_num_groups": "n{}",
    "enable_fast_groupnorm": "fast",
    "norm_eps": "eps{}",
    "input_image_padding": "pad4",
    "eight_bit_io": "uint8",
    "normalization_location": "at{}",
    "classes": "c{}",
}
INTRODUCTION = """\
# The commands of five READMEs

This page has every command of five READMEs of Graphcore's examples, with the equivalent commands of this suite,
layerbench. `scripts/readme_commands.py` generates the page from `docs/readme_commands.json`. Tests compare every option
of each layerbench command with what the original program set, including its defaults (`docs/original_settings.json`).

* **original**: the command in the README. `$DATASETS_DIR` is the folder of ImageNet, or its parent folder.
* **layerbench, on an IPU**: the whole command, with poprun and its options. `--backend` names the framework of the
  original program; the list below the commands has the others. [ipu.md](ipu.md) has the options. These commands have
  run on fakes only, not on hardware.
* **layerbench, on any device**: the same work (`--device cuda`), in every installed framework, or in one (`--backend
  tensorflow`). Devices = replicas x (pipeline splits + 1). Global batch = batch size x gradient accumulation x
  replicas.
* **layerbench, on a CPU**: a smaller command that takes a minute or two: fp32, one replica, no pipeline, two
  accumulated batches, batches of 1 to 24 images, 2 to 5 steps, and generated images in place of real ones. Training
  also runs on real images, with `--data real --data-dir DIR` in place of `--data generated`.
* **Selects**: the names of the cases, without backend and device.

`python -m scripts.readme_commands --run` runs all commands for a CPU and prints the result of each.
"""
NO_EQUAL = """\
## Original options without an equivalent

Settings of the original programs that layerbench has no equivalent for, by their original names. Every other setting
is in the layerbench command for an IPU.

| original | why |
|---|---|
"""


def load() -> Any:
    return json.loads(DATA.read_text())


def lines(data: Any) -> Iterator[Line]:
    """Every command line of the suite: for each original command those for an IPU, for any device, and for a CPU."""
    for readme in data["readmes"]:
        for number, command in enumerate(readme["commands"], 1):
            for pair in command["lines"]:
                name = " ".join(part for part in (f"{readme['id']}/{number}", pair["what"]) if part)
                for side in SIDES:
                    if side in pair:
                        yield Line(name, side, pair[side]["line"], expected(pair, side), command["original"])


def expected(pair: Any, side: str) -> Dict[str, Any]:
    """The cases that a line selects; empty if another command lists the line. A CPU's entry has the differences."""
    if "ours" not in pair:
        return {}
    expect: Dict[str, Any] = pair["ours"]["expect"]
    return {**expect, **pair["cpu"]["expect"]} if side == "cpu" else expect


def prefixes(expect: Mapping[str, Any]) -> List[str]:
    """The names of the expected cases, without backend and device."""
    facts = {**expect, "size": size_name(expect["size"])}
    return [
        "{workload}-{size}-{mode}-b{batch}-{precision}-x{replicas}".format(batch=batch, **facts)
        for batch in expect["batch_sizes"]
    ]


def size_name(size: Union[str, Mapping[str, Any]]) -> str:
    """The name of a size. A layer's size is its name; a network's size is a set of facts."""
    if isinstance(size, str):
        return size
    parts = [f"i{size['image_size']}"]
    for fact, default in DEFAULTS.items():
        if fact in size and size[fact] != default:
            parts.append(LETTERS.get(fact, "{}").format(size[fact]))
    return "_".join(parts)


def render(data: Any, settings: Any) -> str:
    """Return the page."""
    parts = [INTRODUCTION, _no_equal(settings)]
    for readme in data["readmes"]:
        parts.append(f"## {readme['id']}: {readme['title']}\n\n{readme['origin']}\n")
        parts += [_command(command) for command in readme["commands"]]
        parts.append(f"### Options of {readme['id']}\n\n" + _options(readme["options"]))
    return "\n".join(parts)


def _no_equal(settings: Any) -> str:
    rows = []
    for entry in settings["no_equal"]:
        names = ", ".join(f"`--{name}`" for name in entry["options"])
        of = f" ({', '.join(entry['programs'])})" if "programs" in entry else ""
        rows.append(f"| {names}{of} | {entry['why']} |")
    return NO_EQUAL + "\n".join(rows) + "\n"


def _command(command: Any) -> str:
    blocks = ["# original", folded(command["original"])]
    titles = {"ipu": "on an IPU", "ours": "on any device", "cpu": "on a CPU"}
    for pair in command["lines"]:
        name = f", {pair['what']}" if pair["what"] else ""
        for side in SIDES:
            if side in pair:
                blocks += [f"# layerbench, {titles[side]}{name}", folded(pair[side]["line"])]
    notes = [command["note"]] if command["note"] else []
    notes += _others(command["lines"])
    notes += [_selects(pair) for pair in command["lines"] if "ours" in pair]
    body = "\n".join(blocks)
    listed = "\n".join(map(_bullet, notes))
    return f"### {command['where']}\n\n```text\n{body}\n```\n\n{listed}\n"


def _others(pairs: List[Any]) -> List[str]:
    """The other frameworks that can run the lines for an IPU, with one text for lines that have the same frameworks."""
    texts: Dict[str, List[str]] = {}
    for pair in pairs:
        ways = [
            f"`--backend {name}`" + (f" without `{without}`" if without else "")
            for name, without in pair["ipu"]["others"].items()
        ]
        never = "".join(f"; not {name}: {why}" for name, why in pair["ipu"].get("never", {}).items())
        texts.setdefault(" or ".join(ways) + never, []).append(pair["what"])
    several = len(texts) > 1
    return [f"On an IPU in another framework{_of(names) if several else ''}: {text}." for text, names in texts.items()]


def _of(names: List[str]) -> str:
    return f" ({', '.join(names)})"


def _bullet(text: str) -> str:
    return textwrap.fill(f"* {text}", WIDTH + 4, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)


def _selects(pair: Any) -> str:
    expect = pair["ours"]["expect"]
    cases = prefixes(expect)
    named = cases[0] if len(cases) == 1 else f"{cases[0]} ... {cases[-1]}"
    facts = [f"`{named}`"]
    if "devices" in expect:
        facts.append(f"{expect['devices']} devices")
    if expect["mode"] == "training":
        facts += [f"global batch {expect['global_batch']}", f"{expect['weight_updates']} weight updates"]
    return f"Selects{' ' + pair['what'] if pair['what'].startswith('as ') else ''} {', '.join(facts)}."


def _options(rows: List[List[str]]) -> str:
    table = ["| original | layerbench | |", "|---|---|---|"]
    table += [f"| {_code(original)} | {_code(ours) or 'none'} | {note} |" for original, ours, note in rows]
    return "\n".join(table) + "\n"


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def folded(line: str) -> str:
    """A command line as several rows, broken only before options."""
    words = re.findall(r"""(?:[^\s"']|"[^"]*"|'[^']*')+""", line)
    groups: List[str] = []
    for word in words:
        if groups and not word.startswith("-"):
            groups[-1] += f" {word}"
        else:
            groups.append(word)
    rows: List[str] = []
    for group in groups:
        if rows and len(rows[-1]) + len(group) < WIDTH:
            rows[-1] += f" {group}"
        else:
            rows.append(f"    {group}" if rows else group)
    return " \\\n".join(rows)


def main(arguments: List[str]) -> int:
    """Returns exit code 1 for a page that is out of date, and for a line that failed."""
    options = parser().parse_args(arguments)
    if options.run:
        return readme_runs.main(list(lines(load())), options.only, options.out)
    page = render(load(), json.loads(SETTINGS.read_text()))
    if not options.check:
        PAGE.write_text(page)
    elif not PAGE.exists() or PAGE.read_text() != page:
        print(f"{PAGE.relative_to(ROOT)} is out of date: run python -m scripts.readme_commands")
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only check whether the page is up to date")
    parser.add_argument("--run", action="store_true", help="run the lines for a CPU")
    parser.add_argument("--only", metavar="REGEX", help="with --run: only commands and lines that match")
    parser.add_argument("--out", metavar="FILE", type=Path, help="with --run: the table as FILE.json or FILE.md")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
