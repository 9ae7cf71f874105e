"""The links for editors: made, mended, and never at the cost of what a learner has put there."""

import errno
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tiny_transformer.setup import links
from tiny_transformer.setup.links import make_links

PYPROJECT = """
[tool.setuptools.package-dir]
"tiny_transformer.setup" = "00_setup"
"tiny_transformer.setup.grading" = "00_setup/grading"
"tiny_transformer.data" = "data"
"""


@pytest.fixture
def course(tmp_path) -> Path:
    """A course of two folders, one of which has a package within."""
    root = tmp_path / "course"
    (root / "00_setup" / "grading").mkdir(parents=True)
    (root / "data").mkdir()
    (root / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    return root


def shown(root: Path) -> dict[str, Path]:
    links = (root / ".links" / "tiny_transformer").iterdir()
    return {link.name: link.resolve().relative_to(root) for link in links}


ALL = {"setup": Path("00_setup"), "data": Path("data")}


def test_every_folder_is_shown_under_its_module_s_name(course):
    assert make_links(course) == ""
    assert shown(course) == ALL
    assert (course / ".links" / "tiny_transformer" / "setup" / "grading").is_dir()


def test_a_second_run_changes_nothing(course):
    make_links(course)
    folder = course / ".links" / "tiny_transformer"
    before = [os.lstat(link).st_ino for link in folder.iterdir()]
    assert make_links(course) == ""
    assert [os.lstat(link).st_ino for link in folder.iterdir()] == before


@pytest.mark.parametrize(
    "elsewhere", ["another", "missing", "course/data", "course/.links/tiny_transformer/setup"]
)
def test_a_link_that_leads_elsewhere_or_to_itself_is_replaced(course, elsewhere):
    kept = course.parent / "another" / "kept.py"
    kept.parent.mkdir()
    kept.touch()
    link = course / ".links" / "tiny_transformer" / "setup"
    link.parent.mkdir(parents=True)
    links.lead(link, course.parent / elsewhere)
    assert make_links(course) == ""
    assert shown(course) == ALL
    assert kept.exists()


@pytest.mark.skipif(os.name == "nt", reason="a junction is absolute")
def test_the_links_move_with_the_course(course):
    make_links(course)
    course = course.rename(course.with_name("moved"))
    assert shown(course) == ALL


@pytest.mark.parametrize("kind", ["a folder", "a file"])
def test_what_is_no_link_stays_and_the_others_are_made(course, kind):
    there = course / ".links" / "tiny_transformer" / "setup"
    there.parent.mkdir(parents=True)
    if kind == "a folder":
        there.mkdir()
        (there / "mine.py").touch()
    else:
        there.write_text("mine", encoding="utf-8")
    assert make_links(course).startswith(f"{there}: ")
    assert (there / "mine.py").exists() or there.read_text(encoding="utf-8") == "mine"
    assert shown(course)["data"] == Path("data")


def test_windows_gets_junctions(course, monkeypatch):
    made = []

    def create_junction(target: str, link: str) -> None:
        made.append((Path(target), Path(link)))
        os.symlink(target, link)

    monkeypatch.setattr(links.platform, "system", lambda: "Windows")
    winapi = SimpleNamespace(CreateJunction=create_junction)
    monkeypatch.setitem(sys.modules, "_winapi", winapi)
    assert make_links(course) == make_links(course) == ""
    folder = course / ".links" / "tiny_transformer"
    assert made == [(course / "00_setup", folder / "setup"), (course / "data", folder / "data")]


def test_where_no_links_can_be_made_one_sentence_says_so(course, monkeypatch, capsys):
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(links, "ROOT", course)
    monkeypatch.setattr(links, "lead", refuse)
    links.main()
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "the course works all the same" in said and "Operation not permitted" in said


@pytest.mark.parametrize("text", ["no [toml", "[project]\n"])
def test_a_broken_project_file_is_no_traceback_either(course, monkeypatch, capsys, text):
    (course / "pyproject.toml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(links, "ROOT", course)
    links.main()
    assert capsys.readouterr().out.startswith("Your editor may not follow")


def test_an_installed_course_without_its_folders_needs_none(course, monkeypatch, capsys):
    (course / "pyproject.toml").unlink()
    monkeypatch.setattr(links, "ROOT", course)
    links.main()
    assert capsys.readouterr().out == "" and not (course / ".links").exists()
