"""`make watch`: which module's tests a saved file starts, and that it does start them."""

import pytest

from tiny_transformer.setup.grading.watch import module_of


@pytest.mark.parametrize(
    "changed, folder",
    [
        (["02_multihead/exercises.py"], "02_multihead"),
        (["conftest.py", "05_tiny_lm/tests/test_tiny_lm.py"], "05_tiny_lm"),
        (["data/corpus.py"], None),
    ],
)
def test_a_saved_file_starts_the_tests_of_its_module(tmp_path, changed, folder):
    assert module_of([str(tmp_path / file) for file in changed], tmp_path) == folder


def test_a_file_saved_by_way_of_an_editor_s_link_is_that_of_its_module(tmp_path):
    (tmp_path / "01_attention").mkdir()
    (tmp_path / ".links").mkdir()
    (tmp_path / ".links" / "attention").symlink_to(tmp_path / "01_attention")
    saved = str(tmp_path / ".links" / "attention" / "exercises.py")
    assert module_of([saved], tmp_path) == "01_attention"


def test_what_a_link_shows_of_another_place_is_of_no_module(tmp_path):
    root, elsewhere = tmp_path / "course", tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir()
    (root / "linked").symlink_to(elsewhere)
    assert module_of([str(root / "linked" / "a.py")], root) is None
