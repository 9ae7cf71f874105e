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
