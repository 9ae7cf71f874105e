"""What stands before the modules: the way to a new version, and what module 09 hands out."""

import ast
import inspect
import os
import re
import shlex
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tiny_transformer.capstone import exercises
from tiny_transformer.setup.grading.diagnosis import misconceptions
from tiny_transformer.setup.grading.progress import folders, read_exercises, solution

ROOT = Path(__file__).parents[1]
ALL = folders(ROOT)
STUB = "raise NotImplementedError"


def lines_of(heading: str) -> list[str]:
    """The commands of the section of README.md with this heading."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    section = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.search(r"^```sh\n(.*?)^```$", section, re.M | re.S)[1].splitlines()


class TestANewVersion:
    """A learner's clone and the course above it, each with changes of its own."""

    @pytest.fixture
    def git(self, tmp_path, monkeypatch):
        for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
            monkeypatch.setenv(name, os.devnull)
        for who in ("AUTHOR", "COMMITTER"):
            monkeypatch.setenv(f"GIT_{who}_NAME", "someone")
            monkeypatch.setenv(f"GIT_{who}_EMAIL", "someone@example.org")

        def run(where: str, line: str) -> subprocess.CompletedProcess:
            return subprocess.run(
                shlex.split(line, comments=True),
                cwd=tmp_path / where,
                capture_output=True,
                encoding="utf-8",
            )

        (tmp_path / "course").mkdir()
        run("course", "git init --initial-branch main")
        for folder in ALL:
            text = (ROOT / folder / "exercises.py").read_text(encoding="utf-8")
            (tmp_path / "course" / f"{folder}.py").write_text(text, encoding="utf-8")
        run("course", "git add --all")
        run("course", "git commit -m first")
        run(".", "git clone course mine")
        return run

    def change(self, file: Path, old: str, new: str, times: int = -1) -> str:
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new, times), encoding="utf-8")
        return file.read_text(encoding="utf-8")

    @pytest.mark.parametrize("committed", [False, True])
    def test_both_sides_arrive(self, git, tmp_path, committed):
        for folder in ALL:
            self.change(tmp_path / "mine" / f"{folder}.py", STUB, "answer = 42\n    return answer")
            self.change(tmp_path / "course" / f"{folder}.py", ">>> ", ">>> _ = 0\n    >>> ", 1)
            self.change(
                tmp_path / "course" / f"{folder}.py", "\nimport ", "\nimport abc\nimport ", 1
            )
        (tmp_path / "course" / "new.py").touch()
        git("course", "git add --all")
        git("course", "git commit -m second")
        if committed:
            git("mine", "git commit --all -m mine")
        done = [git("mine", line) for line in lines_of("A new version")]
        assert done[-1].returncode == 0, done[-1].stderr
        assert (tmp_path / "mine" / "new.py").exists()
        for folder in ALL:
            text = (tmp_path / "mine" / f"{folder}.py").read_text(encoding="utf-8")
            assert text.count("answer = 42") > 1 and STUB not in text
            assert text.count("_ = 0") == 1 and "import abc" in text and "<<<<" not in text

    def test_where_both_changed_a_line_git_shows_both_and_the_way_back_is_there(
        self, git, tmp_path
    ):
        mine, course = (tmp_path / side / f"{ALL[1]}.py" for side in ("mine", "course"))
        before = self.change(mine, STUB, "return 42")
        self.change(course, STUB, "raise NotImplementedError('soon')", 1)
        git("course", "git commit --all -m second")
        done = [git("mine", line) for line in lines_of("A new version")]
        assert done[-1].returncode != 0 and "CONFLICT" in done[-1].stdout
        shown = mine.read_text(encoding="utf-8")
        assert re.search(r"<<<<<<<.*return 42.*=======.*soon.*>>>>>>>", shown, re.S)
        page = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
        assert "`git merge --abort`" in page
        assert git("mine", "git merge --abort").returncode == 0
        assert mine.read_text(encoding="utf-8") == before

    def test_a_notebook_that_both_have_run_is_the_new_one(self, git, tmp_path):
        name = "01_attention/notebook.ipynb"
        for side, text in (("course", "{1}"), ("mine", None), ("course", "{2}"), ("mine", "{3}")):
            if text is None:
                git(side, "git pull")
                continue
            (tmp_path / side / name).parent.mkdir(exist_ok=True)
            (tmp_path / side / name).write_text(text, encoding="utf-8")
            if side == "course":
                git(side, "git add --all")
                git(side, "git commit -m run")
        done = [git("mine", line) for line in lines_of("A new version")]
        assert "CONFLICT" in done[-1].stdout
        page = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
        line = re.search(r"`(git checkout [^`]*)`", page)[1]
        assert git("mine", line).returncode == 0
        assert (tmp_path / "mine" / name).read_text(encoding="utf-8") == "{2}"
        assert git("mine", f"git add {name}").returncode == 0
        assert git("mine", "git commit --no-edit").returncode == 0

    def test_without_these_lines_git_refuses(self, git, tmp_path):
        mine, course = (tmp_path / side / f"{ALL[1]}.py" for side in ("mine", "course"))
        self.change(mine, STUB, "return 42")
        self.change(course, ">>> ", ">>> _ = 0\n    >>> ", 1)
        git("course", "git commit --all -m second")
        assert "would be overwritten" in git("mine", "git pull").stderr


@pytest.mark.parametrize("shade", ["light", "dark"])
def test_the_picture_of_the_loop_says_what_the_loop_says(shade):
    picture = ElementTree.parse(ROOT / "00_setup" / "figures" / f"terminal-{shade}.svg")
    told = " ".join("".join(picture.getroot().itertext()).split())
    first = read_exercises(ROOT, "01_attention", {})[0]
    hints = [bug.hint for bug in misconceptions("attention") if bug.exercise == first.name]
    assert any(hint in told for hint in hints), "run 00_setup/figures/terminal.py"
    assert f"{first.name} ★ {first.file}:{first.line}" in told
    assert f"{first.name} is solved; compare with {solution(ROOT, ALL[1], first.name)}" in told


def test_what_the_capstone_hands_out_is_called_as_its_page_says():
    page = inspect.getdoc(exercises)
    calls = re.findall(r"^    ([\w.]+\(.*?\))(?:  |$)", page, re.M)
    assert len(calls) >= 12
    for call in calls:
        tree = ast.parse(call, mode="eval").body
        owner, _, method = ast.unparse(tree.func).rpartition(".")
        thing = (
            getattr(getattr(exercises, owner.title()), method) if owner else vars(exercises)[method]
        )
        given = [*([None] if owner else []), *tree.args]
        inspect.signature(thing).bind(*given, **{word.arg: word for word in tree.keywords})
