"""Run the steps of a CI recipe in a clean clone: `python -m scripts.run_ci FILE.yml JOB`.

The recipes are examples/ci/github.yml and examples/ci/gitlab.yml. Their commands are taken from the text: lines below
`run: |`, or items below `before_script:`, `script:` and `after_script:`. Caches and artefacts are the clone's folders.
`--environment FOLDER` uses an installed environment in place of the commands that install one.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, List

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ("before_script", "script", "after_script")
INSTALLS = ("python3 -m venv", ".venv/bin/pip install")


def jobs(text: str) -> Dict[str, List[str]]:
    """The commands of each job of a recipe, in order."""
    github = re.search(r"^jobs:\n(.*)", text, re.DOTALL | re.MULTILINE)
    indent = "  " if github else ""
    found: Dict[str, List[str]] = {}
    for name, body in re.findall(
        rf"^{indent}(\w+):\n((?:{indent}  .*\n|\n)+)", github[1] if github else text, re.MULTILINE
    ):
        commands = _below_run(body) if github else _below_scripts(body)
        if commands:
            found[name] = commands
    return found


def _below_run(body: str) -> List[str]:
    """The lines of each `run: |`, which are one shell script."""
    scripts = []
    for indent, lines in re.findall(r"^( +)run: \|\n((?:\1  .*\n)+)", body, re.MULTILINE):
        scripts += [line[len(indent) + 2 :] for line in lines.splitlines()]
    return scripts


def _below_scripts(body: str) -> List[str]:
    """The items of each script of a job."""
    commands = []
    for name in SCRIPTS:
        for lines in re.findall(rf"^  {name}:\n((?:    - .*\n)+)", body, re.MULTILINE):
            commands += [line[6:] for line in lines.splitlines()]
    return commands


def main(file: Path, job: str, clone: Path, environment: str, branch: str) -> int:
    """Run the commands of a job in a new clone, and say how long each took. Returns the exit code of the first that
    failed."""
    commands = jobs(file.read_text())[job]
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    variables = {
        **os.environ,
        "LAYERBENCH_CACHE": os.environ.get("LAYERBENCH_CACHE", str(clone / ".bench" / "cache")),
        "GITHUB_STEP_SUMMARY": str(clone / "summary.md"),
        "GITHUB_BASE_REF": branch,
        "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": branch,
    }
    if environment:
        (clone / ".venv").symlink_to(environment)
    code = 0
    for command in commands:
        if environment and command.startswith(INSTALLS):
            continue
        start = time.perf_counter()
        done = subprocess.run(["bash", "-ec", command], cwd=str(clone), env=variables).returncode
        print(f"{time.perf_counter() - start:.0f} s, exit code {done}: {command[:100]}", flush=True)
        code = code or done
    return code


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("job")
    parser.add_argument("--environment", default="", metavar="FOLDER", help="use this environment, install none")
    parser.add_argument("--branch", default="main", help="the target of the pull request (default: main)")
    parser.add_argument("--clone", type=Path, help="where to clone to (default: a temporary folder)")
    given = parser.parse_args()
    place = given.clone or Path(tempfile.mkdtemp()) / "clone"
    print(f"clone: {place}", flush=True)
    sys.exit(main(given.file, given.job, place, given.environment, given.branch))
