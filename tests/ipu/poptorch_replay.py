"""Our backend on PopTorch's real Python layer: `python poptorch_replay.py FOLDER FILE`.

FOLDER is the `python` folder of a source checkout. `poptorch_core.py` stands in for the core. The questions are
those of contract_worker.py, which asks them of the fake, and some more. FILE receives the answers.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

# The fakes' folder is not on PYTHONPATH, where it would be the SDK.
sys.path.extend(str(parent / name) for parent in list(Path(__file__).resolve().parents)[1:3] for name in ("", "fakes"))

import contract_worker
import poptorch_core
import poptorch_source
import torch
from contract_worker import compiled_only


class RealBench(contract_worker.Bench):
    def ended(self, answer):
        held = len(poptorch_core.ATTACHED)
        poptorch_core.ATTACHED.clear()
        compiled = poptorch_core.COMPILED.pop() if poptorch_core.COMPILED else {}
        return {**answer, **compiled, "held": held}


def stepping(bench):
    """The calls of the core while a program trains or infers, after the first step."""
    for mode in ("training", "inference"):
        case, settings = bench.made("resnet8", mode)
        yield mode, bench.seen(case, settings, core_calls)


def core_calls(program, graph, weights):
    program.run()
    called = []
    before = dict(vars(poptorch_core))
    for name, function in before.items():
        if callable(function) and name[:1].islower():
            setattr(poptorch_core, name, lambda *args, f=function, name=name: called.append(name) or f(*args))
    try:
        for step in range(2):
            if program.training:
                program.set_learning_rate(0.1 * (step + 1))
            program.run()
    finally:
        vars(poptorch_core).update(before)
    return called


def chains(bench):
    """Programs of chains of 6 and of 600 transitions, as they are timed."""
    for steps in (6, 600):
        case, settings = bench.made("hmc", dimensions={"hmc_steps": steps})
        yield str(steps), bench.seen(case, settings, compiled_only, timed=True)


def broken(bench):
    """A device that fails in a run, and then in every copy from it."""
    case, settings = bench.made("dense", "training")

    def look(program, graph, weights):
        for name in ("execute", "copyWeightsToHost_impl", "readOptimizerState"):
            setattr(poptorch_core, name, fails)
        program.run()

    before = dict(vars(poptorch_core))
    answer = bench.seen(case, settings, look)
    vars(poptorch_core).update(before)
    yield "in a run", answer


def fails(*args):
    # The true core has no frame in which the exception would hold the executable.
    del args
    raise poptorch_core.UnrecoverableError("poplar_unrecoverable_runtime_error: a link is down")


class Plus(torch.nn.Module):
    def forward(self, x):
        return x + torch.ones(3, device="cpu")


class Read(torch.nn.Module):
    def forward(self, x):
        return x * x.sum().item()


class Unknown(torch.nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)


class Replaced(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))

    def forward(self, x):
        self.weight = torch.nn.Parameter(self.weight * 2)
        return x * self.weight


def refused(bench):
    """What the layer and its core do not take."""
    import poptorch

    wrong = {"unknown": ("noSuchOption", 1), "of another type": ("numIOTiles", "32")}
    modules = {module.__name__: (module(), poptorch.Options()) for module in (Plus, Read, Unknown, Replaced)}
    for name, pair in wrong.items():
        options = poptorch.Options()
        options._Popart.set(*pair)
        modules[f"an option {name}"] = torch.nn.Linear(3, 3), options
    for name, (module, options) in modules.items():
        answer = {"outcome": "passed"}
        try:
            poptorch.inferenceModel(module, options)(torch.ones(2, 3))
        except Exception as error:  # noqa: BLE001 - what is raised is the answer
            answer.update(contract_worker.raised(error))
        yield name, bench.ended(answer)


ASKED = ("numbers", "many", "wrong", "programs", "sessions", "devices", "feeds", "optimisers", "runs")

if __name__ == "__main__":
    folder, file = sys.argv[1:]
    with tempfile.TemporaryDirectory() as scratch:
        # Nothing that is computed here counts as measured.
        poptorch_source.load(folder, scratch).__fake__ = True
        bench = RealBench("poptorch")
        questions = [getattr(contract_worker, name) for name in ASKED]
        questions += [stepping, chains, broken, refused]
        answers = {question.__name__: dict(question(bench)) for question in questions}
    Path(file).write_text(json.dumps(answers, default=str))
