"""Run a module's tests whenever one of its files is saved: `make watch`."""

import subprocess
import sys
from pathlib import Path

from watchfiles import PythonFilter, watch

ROOT = Path(__file__).resolve().parents[2]


def module_of(changed: list[str], root: Path) -> str | None:
    """The numbered folder that holds the first of the changed files which lies in one."""
    for file in changed:
        real = Path(file).resolve()  # .links leads to the same folders, and may be what is named
        if real.is_relative_to(root) and (folder := real.relative_to(root).parts[0])[0].isdigit():
            return folder
    return None


def main(options: list[str]) -> None:
    print("watching; save a file of a module to run its tests, Ctrl-C to stop")
    for changes in watch(ROOT, watch_filter=PythonFilter(), raise_interrupt=False):
        if folder := module_of(sorted(file for _, file in changes), ROOT):
            subprocess.run([sys.executable, "-m", "pytest", folder, *options], cwd=ROOT)


if __name__ == "__main__":
    main(sys.argv[1:])
