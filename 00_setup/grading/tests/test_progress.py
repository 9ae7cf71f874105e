"""How far you are: what is remembered, on which code it counts, and how it is shown."""

import ast
import hashlib
import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tiny_transformer.setup.grading import progress
from tiny_transformer.setup.grading.progress import (
    FILE,
    FORMER,
    definitions,
    digests,
    folders,
    graded,
    read_book,
    read_exercises,
    remember,
    report,
)

ROOT = Path(__file__).parents[3]
RIGHT = {"77_toy": {"double": {"code": "0f", "tests": {"test_toy.py::test_three": True}}}}
BOOK = {"results": RIGHT, "hints": {"77_toy.double": 2}, "at": "77_toy.double"}
NOTHING = {"results": {}, "hints": {}, "at": ""}
CODE = """
LIMIT = 3

def helper(x):
    return x

def double(x, *, times: int = 1) -> float:
    '''Twice x.'''
    assert times < LIMIT, f"{times} is {'too'} much: {x!r:>{LIMIT}}"
    return helper(2**times * x) if x else None

class Doubler:
    def run(self, x):
        return double(x)
"""


def written(folder: Path, content: bytes | None) -> Path:
    file = folder / FILE
    file.parent.mkdir(parents=True)
    file.mkdir() if content is None else file.write_bytes(content)
    return folder


def test_what_is_remembered_comes_back(tmp_path):
    remember(tmp_path, lambda book: book.update(BOOK))
    assert read_book(tmp_path) == BOOK
    assert [file.name for file in (tmp_path / FILE).parent.iterdir()] == [FILE.name]


def test_one_change_leaves_the_rest_as_it_was(tmp_path):
    remember(tmp_path, lambda book: book.update(BOOK))
    remember(tmp_path, lambda book: book["hints"].update({"77_toy.other": 1}))
    assert read_book(tmp_path) == BOOK | {"hints": {"77_toy.double": 2, "77_toy.other": 1}}


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"x", b"null", b"[]", b"3", b"{}", b"\xff\xfe", b"\x00"),
        json.dumps(RIGHT).encode(),
        json.dumps(BOOK).replace("true", "1").encode(),
        json.dumps(BOOK).replace('"0f"', "null").encode(),
        json.dumps(BOOK).replace(": 2", ': "2"').encode(),
        json.dumps(BOOK | {"results": RIGHT | {"78_other": None}}).encode(),
        b'{"a":' * 100_000,
        b"[" * 100_000,
        b"1" * 10_000,  # more digits than Python turns into a number
        None,  # a folder in its place
    ],
    ids=lambda content: repr(content)[:30],
)
def test_a_damaged_or_foreign_file_counts_as_none(tmp_path, content):
    assert read_book(written(tmp_path, content)) == NOTHING


def test_a_place_where_nothing_can_be_written_is_no_error(tmp_path):
    (tmp_path / FILE.parent).write_bytes(b"")
    remember(tmp_path, lambda book: book.update(BOOK))
    assert read_book(tmp_path) == NOTHING


@pytest.mark.parametrize("content", [b"\xff", b"\x00", b"def (", b"(" * 100_000])
def test_exercises_that_cannot_be_read_are_none(tmp_path, content):
    (tmp_path / "77_toy").mkdir()
    (tmp_path / "77_toy" / "exercises.py").write_bytes(content)
    assert read_exercises(tmp_path, "77_toy", {}) == []


def digest(code: str, name: str = "double") -> str:
    with TemporaryDirectory() as folder:
        file = Path(folder, "exercises.py")
        file.write_text(code, encoding="utf-8")
        return digests(definitions(file))[name][0]


class TestDigest:
    def test_is_the_same_on_every_python(self):
        assert [digest(CODE), digest(CODE, "Doubler")] == ["4c8763f310669eb6", "871b4abe19ce50b6"]

    @pytest.mark.parametrize(
        "old, new",
        [
            ("    assert", "    # how often\n\n    assert"),
            ("2**times * x", "2 ** times*x"),
            ("2**times * x", "(\n        (2**times) * x\n    )"),
            ("'''Twice x.'''", "'''Two times x.'''"),
            ("    '''Twice x.'''\n", ""),
            ("{'too'}", "{'too' }"),
            ("class Doubler", "class Other"),
        ],
    )
    def test_ignores_comments_layout_and_docstrings_and_what_is_not_used(self, old, new):
        assert old in CODE
        assert digest(CODE.replace(old, new)) == digest(CODE)

    @pytest.mark.parametrize(
        "old, new",
        [
            ("times: int = 1", "times: int = 2"),
            ("*, ", ""),
            ("2**times", "2.0**times"),
            ("too", "far too"),
            ("!r", ""),
            ("else None", "else False"),
            ("LIMIT = 3", "LIMIT = 4"),
            ("    return x\n", "    return +x\n"),
        ],
    )
    def test_sees_every_change_of_the_code_and_of_what_it_uses(self, old, new):
        assert old in CODE
        assert digest(CODE.replace(old, new)) != digest(CODE)

    def test_sees_what_is_imported_for_it_and_nothing_else(self):
        code = "def double(x):\n    return math.pi * x\n"
        plain = digest("import math\n" + code)
        assert plain == digest("from torch import nn\nimport os, math\n" + code)
        assert len({plain, digest(code), digest("import cmath as math\n" + code)}) == 3

    def test_of_what_calls_itself_ends(self):
        assert digest("def double(x):\n    return other(x)\ndef other(x):\n    return double(x)")


@pytest.fixture
def toy(tmp_path):
    """A course of one module with two exercises, solved and tested, but for what is changed."""
    folder = tmp_path / "77_toy"
    (folder / "tests").mkdir(parents=True)
    (folder / "exercises.py").write_text(CODE, encoding="utf-8")
    tests = (
        'import pytest\n\n@pytest.mark.exercise("double")\ndef test_three(impl):\n    pass\n\n'
        '@pytest.mark.exercise("Doubler")\nclass TestDoubler:\n    def test_runs(self, impl):\n'
        '        pass\n    @pytest.mark.exercise("double")\n    def test_four(self, impl):\n'
        "        pass\n    def helper(self):\n        pass\n"
    )
    (folder / "tests" / "test_toy.py").write_text(tests, encoding="utf-8")
    return tmp_path


def test_the_tests_of_an_exercise_are_found_by_their_marks(toy):
    file = "77_toy/tests/test_toy.py"
    assert graded(toy, "77_toy") == {
        "double": [f"{file}::test_three", f"{file}::TestDoubler::test_four"],
        "Doubler": [f"{file}::TestDoubler::test_runs"],
    }


def test_results_of_earlier_versions_count_for_the_code_that_they_are_of(toy):
    nodes = definitions(toy / "77_toy" / "exercises.py")
    code = {
        "double": hashlib.sha256(ast.dump(nodes["double"]).encode()).hexdigest(),
        "Doubler": "of other code",
    }
    tests = {name: dict.fromkeys(of, True) for name, of in graded(toy, "77_toy").items()}
    former = {"77_toy": {name: {"code": code[name], "tests": tests[name]} for name in code}}
    (toy / FORMER).parent.mkdir(parents=True)
    (toy / FORMER).write_text(json.dumps(former), encoding="utf-8")
    double, doubler = read_exercises(toy, "77_toy", read_book(toy)["results"])
    assert (double.state, doubler.state) == ("solved", "begun")
    assert doubler.untested


def test_a_test_that_never_ran_is_neither_passed_nor_failed(toy):
    three, four = graded(toy, "77_toy")["double"]
    results = progress.merged(toy, {}, {("77_toy", "double"): {three: [True, True], four: []}})
    double = read_exercises(toy, "77_toy", results)[0]
    assert (double.passed, double.failed, double.tests, double.state) == (1, 0, 2, "begun")
    assert report(toy, ["77_toy"], results)[1].endswith("1 of 2 tests pass, 1 did not run")


@pytest.mark.parametrize(
    "went, counts", [([True, True], True), ([True, False], False), ([True, None], None)]
)
def test_a_test_counts_as_its_worst_parameters(toy, went, counts):
    three, _ = graded(toy, "77_toy")["double"]
    results = progress.merged(toy, {}, {("77_toy", "double"): {three: went}})
    tests = results.get("77_toy", {}).get("double", {"tests": {}})["tests"]
    assert tests.get(three) is counts


def test_a_test_that_is_gone_no_longer_counts(toy):
    code = read_exercises(toy, "77_toy", {})[0].code
    tests = dict.fromkeys(graded(toy, "77_toy")["double"], True)
    results = {"77_toy": {"double": {"code": code, "tests": {**tests, "test_gone": False}}}}
    assert read_exercises(toy, "77_toy", results)[0].state == "solved"


@pytest.mark.parametrize("folder", folders(ROOT))
@pytest.mark.parametrize("passed", [0, 1, 100])
def test_every_line_fits_a_terminal(tmp_path, folder, passed):
    shutil.copytree(ROOT / folder / "tests", tmp_path / folder / "tests")
    shutil.copy(ROOT / folder / "tests" / "solved.py", tmp_path / folder / "exercises.py")
    tests = graded(tmp_path, folder)
    results = {
        folder: {
            exercise.name: {
                "code": exercise.code,
                "tests": {test: i < passed for i, test in enumerate(tests[exercise.name])},
            }
            for exercise in read_exercises(tmp_path, folder, {})
        }
    }
    lines = report(tmp_path, [folder], results)
    assert max(map(len, lines)) <= progress.WIDTH
    assert ("next:" in "".join(lines)) == (passed < 100)


def test_tests_that_a_class_inherits_are_its_exercise_s(tmp_path):
    tests = tmp_path / "77_toy" / "tests"
    tests.mkdir(parents=True)
    (tmp_path / "77_toy" / "exercises.py").write_bytes(b"def double(x):\n    return x + x\n")
    (tests / "test_toy.py").write_bytes(
        b"import pytest\n\nclass Common:\n    def test_one(self, impl): pass\n\n"
        b'@pytest.mark.exercise("double")\nclass TestDouble(Common):\n    name = "double"\n'
    )
    (exercise,) = read_exercises(tmp_path, "77_toy", {})
    assert (exercise.name, exercise.tests) == ("double", 1)
