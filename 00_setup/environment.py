"""What `python -m tiny_transformer.setup` looks at: each check says what it found, or what to do.

Nothing here imports a third-party package at the top: a broken installation is one of the findings.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from tiny_transformer.setup import links


@dataclass(frozen=True)
class Check:
    """`look` returns what it found, or raises an error whose first line says what is wrong."""

    name: str
    look: Callable[[], str]
    remedy: str
    needs: str = ""  # the check without which this one can tell nothing


def main() -> int:
    """Run every check; the exit status is 0 where all is well."""
    links.main()
    return 1 if report(CHECKS) else 0


def report(checks: Sequence[Check]) -> list[Check]:
    """Print a line per check, a verdict and what to do about it; return the checks that failed."""
    failed: list[Check] = []
    for check in checks:
        if check.needs in [other.name for other in failed]:
            print(f"{check.name:<10}{'failed':<8}not run: it needs {check.needs}")
            continue
        try:
            status, found = "ok", check.look()
        except Exception as error:  # whatever breaks here is a finding about this machine
            status, found = "failed", (str(error) or type(error).__name__).splitlines()[0]
            failed.append(check)
        print(f"{check.name:<10}{status:<8}{found}", flush=True)
    if failed:
        print("\nNot ready yet. What to do:")
        for check in failed:
            print(f"- {check.name}: {check.remedy}")
    else:
        print("\nReady. Next: write 00_setup/exercises.py and run `pytest 00_setup`.")
    return failed


def find_python() -> str:
    from packaging.specifiers import SpecifierSet

    found = ".".join(map(str, sys.version_info[:3]))
    supported = metadata("tiny_transformer")["Requires-Python"]
    if found not in SpecifierSet(supported):
        raise RuntimeError(f"this is Python {found}; the course needs {supported}")
    return found


def find_packages() -> str:
    """The course's own metadata is the list; what only an extra asks for is not needed."""
    from packaging.requirements import Requirement

    needed = [Requirement(line) for line in requires("tiny_transformer") or []]
    needed = [one for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    problems = []
    for one in needed:
        try:
            if not one.specifier.contains(version(one.name), prereleases=True):
                problems.append(f"{one.name} is {version(one.name)}, not {one.specifier}")
        except PackageNotFoundError:
            problems.append(f"{one.name} is not installed")
    if problems:
        raise RuntimeError("; ".join(problems))
    return f"all {len(needed)} installed"


def find_torch() -> str:
    try:
        import torch
    except Exception as error:  # a missing library of the system raises OSError, not ImportError
        raise RuntimeError(f"torch cannot be imported: {error}") from error
    return torch.__version__


def find_device() -> str:
    import psutil
    import torch

    from tiny_transformer.setup.device import (
        choose_device,
        compile_obstacle,
        half_precision,
        sm_version,
    )

    device, sm = choose_device(), ""
    if device.type == "cuda":
        name, memory = torch.cuda.get_device_name(), torch.cuda.mem_get_info()[1]
        sm = f", {sm_version(device)}"
    elif device.type == "mps":
        name, memory = "Apple GPU", torch.mps.recommended_max_memory()
    else:
        name, memory = f"{torch.get_num_threads()} threads", psutil.virtual_memory().total
    precision = str(half_precision(device) or torch.float32).removeprefix("torch.")
    found = f"{device} ({name}, {memory / 2**30:.1f} GiB{sm}); {precision}"
    if device.type == "mps":  # for which PyTorch's compiler is an experiment
        return found
    obstacle = compile_obstacle(device)
    return f"{found}; does not compile: {obstacle}" if obstacle else f"{found}; compiles"


def find_corpus() -> str:
    from tiny_transformer.data.corpus import prepare

    path = prepare()
    return f"{path} ({path.stat().st_size:,} bytes)"


def train_briefly(steps: int = 40) -> str:
    """Teach a small network to recite the alphabet; its loss starts near ln 26 = 3.26."""
    import torch
    from torch import nn

    from tiny_transformer.setup.device import choose_device, seed_everything

    seed_everything(0)
    device, start = choose_device(), time.perf_counter()
    model = nn.Sequential(nn.Embedding(26, 32), nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 26))
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    letters = torch.arange(26, device=device)
    losses = []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(letters), letters.roll(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    course = f"the loss went from {losses[0]:.2f} to {losses[-1]:.2f}"
    if not losses[-1] < losses[0] / 2:  # NaN is not below anything
        raise RuntimeError(f"{course} in {steps} steps instead of falling")
    return f"{course} in {time.perf_counter() - start:.1f} s on {device}"


REINSTALL = "activate the course's .venv, then `pip install -e .` in the course's folder."
CHECKS = [
    Check(
        "Python",
        find_python,
        "install a Python that the course supports, and make a new .venv with it.",
    ),
    Check("Packages", find_packages, REINSTALL),
    Check(
        "PyTorch",
        find_torch,
        "`pip install --force-reinstall torch`; on Windows also install the Microsoft Visual C++ "
        "Redistributable. https://pytorch.org/get-started/locally lists the builds.",
    ),
    Check(
        "Device",
        find_device,
        "update the GPU's driver, or hide the GPU by setting CUDA_VISIBLE_DEVICES to nothing: "
        "every module runs on the CPU.",
        needs="PyTorch",
    ),
    Check(
        "Corpus",
        find_corpus,
        "connect to the internet once and run this again, or put tiny Shakespeare's input.txt "
        "where the README's section on data says.",
    ),
    Check(
        "Training",
        train_briefly,
        "install PyTorch again; if it trains with CUDA_VISIBLE_DEVICES set to nothing, the GPU's "
        "driver does not suit this PyTorch.",
        needs="PyTorch",
    ),
]
