"""`tiny-transformer learn` on a module whose tests are run by nobody: what it runs, shows, does."""

import os
import re
import shutil
from pathlib import Path

import pytest

from tiny_transformer.setup.grading import keys, learn
from tiny_transformer.setup.grading.learn import Lesson
from tiny_transformer.setup.grading.progress import (
    graded,
    read_book,
    read_exercises,
    remember,
)
from tiny_transformer.setup.grading.reset import stubs_of
from tiny_transformer.setup.grading.worker import Answer

ROOT = Path(__file__).parents[3]
MODULE = "01_attention"
NAMES = list(graded(ROOT, MODULE))


class FakeRun:
    """A run that ends when the test says so."""

    def __init__(self, root, wanted, width):
        self.wanted, self.begun, self.said, self.stopped = wanted, 0.0, None, False
        [self.names] = wanted.values()

    def answer(self):
        return self.said

    def stop(self):
        self.stopped = True


class Course:
    def __init__(self, root: Path):
        self.root = root
        self.file = root / MODULE / "exercises.py"
        solved = root / MODULE / "tests" / "solved.py"
        self.solved = solved.read_text(encoding="utf-8")

    def write(self, name: str, extra: str = "") -> None:
        """Solve an exercise, as `solved.py` does, or otherwise."""
        lines = self.solved.splitlines(keepends=True)
        nodes = learn.definitions(self.root / MODULE / "tests" / "solved.py")
        solution = lines[nodes[name].lineno - 1 : nodes[name].end_lineno]
        lines = self.file.read_text(encoding="utf-8").splitlines(keepends=True)
        node = learn.definitions(self.file)[name]
        lines[node.lineno - 1 : node.end_lineno] = [*solution, extra]
        self.file.write_text("".join(lines), encoding="utf-8")

    def tested(self, name: str, right: bool = True) -> None:
        exercise = next(e for e in read_exercises(self.root, MODULE, {}) if e.name == name)
        result = {
            "code": exercise.code,
            "tests": dict.fromkeys(graded(self.root, MODULE)[name], right),
        }
        remember(
            self.root, lambda book: book["results"].setdefault(MODULE, {}).update({name: result})
        )

    def lesson(self, interactive: bool = False) -> Lesson:
        lesson = Lesson(self.root, [MODULE], interactive)
        lesson.begin()
        return lesson


@pytest.fixture
def course(tmp_path, monkeypatch):
    monkeypatch.setattr(learn, "Run", FakeRun)
    monkeypatch.setattr(learn, "solution", lambda root, folder, name: f"{folder}/reference.py:1-9")
    monkeypatch.setattr(keys, "pressed", lambda: "")
    shutil.copytree(ROOT / MODULE / "tests", tmp_path / MODULE / "tests")
    shutil.copy(ROOT / MODULE / "theory.md", tmp_path / MODULE)
    stubs = stubs_of(tmp_path, MODULE)
    stubs.parent.mkdir(parents=True)
    shutil.copy(stubs_of(ROOT, MODULE), stubs)
    shutil.copy(stubs, tmp_path / MODULE / "exercises.py")
    return Course(tmp_path)


def wrong(name: str) -> Answer:
    return Answer(first=(MODULE, name), block=[f"  {name} is not right."], traceback=["E  because"])


def answered(lesson: Lesson, answer: Answer) -> None:
    lesson.run.said = answer
    lesson.turn(saved=False)


def test_it_begins_with_the_first_and_says_what_it_asks_for(course, capsys):
    lesson = course.lesson()
    assert lesson.at == (MODULE, "stable_softmax") and lesson.run is None
    assert "Turn scores into probabilities" in capsys.readouterr().out


def test_it_goes_on_where_one_stopped(course):
    course.lesson().press("n")
    assert course.lesson().at == (MODULE, "causal_mask")


def test_what_was_solved_meanwhile_is_left_behind(course):
    course.lesson()
    course.write("stable_softmax")
    course.tested("stable_softmax")
    assert course.lesson().at == (MODULE, "causal_mask")


def test_a_save_runs_what_one_is_at(course):
    lesson = course.lesson()
    course.write("stable_softmax")
    lesson.turn(saved=True)
    assert lesson.run.wanted == {MODULE: {"stable_softmax"}}


def test_a_save_runs_what_is_called_and_wrong_too(course):
    course.write("attention_scores")
    course.tested("attention_scores", right=False)
    lesson = course.lesson()
    course.write("scaled_dot_product_attention")
    lesson.at = MODULE, "scaled_dot_product_attention"
    lesson.turn(saved=True)
    assert lesson.run.names == {"attention_scores", "scaled_dot_product_attention"}


def test_what_is_untested_since_a_change_beside_it_is_run_on_the_way(course):
    for name in ("stable_softmax", "causal_mask", "attention_scores"):
        course.write(name)
        course.tested(name)
    lesson = course.lesson()
    course.write("attention_scores", extra="    pass\n")
    course.write("scaled_dot_product_attention")
    lesson.turn(saved=True)
    assert lesson.run.names == {"scaled_dot_product_attention", "attention_scores"}


def test_who_writes_another_exercise_is_there(course):
    lesson = course.lesson()
    course.write("causal_mask")
    lesson.turn(saved=True)
    assert lesson.at == (MODULE, "causal_mask") and lesson.run.names == {"causal_mask"}


def test_what_is_still_running_is_stopped_by_the_next_save(course):
    lesson = course.lesson()
    course.write("stable_softmax")
    lesson.turn(saved=True)
    first = lesson.run
    lesson.turn(saved=True)
    assert first.stopped and not lesson.run.stopped


def test_what_is_wrong_is_shown_in_its_block(course, capsys):
    lesson = course.lesson()
    course.write("stable_softmax")
    lesson.turn(saved=True)
    answered(lesson, wrong("stable_softmax"))
    assert "stable_softmax is not right." in capsys.readouterr().out
    assert lesson.at == (MODULE, "stable_softmax")


def test_what_waits_for_another_leads_there(course):
    lesson = course.lesson()
    course.write("scaled_dot_product_attention")
    lesson.turn(saved=True)
    answered(lesson, wrong("attention_scores"))
    assert lesson.at == (MODULE, "attention_scores")


def test_what_is_solved_is_said_with_the_lines_to_compare_and_the_next_one_is_shown(course, capsys):
    lesson = course.lesson()
    course.write("stable_softmax")
    lesson.turn(saved=True)
    course.tested("stable_softmax")
    answered(lesson, Answer())
    out = capsys.readouterr().out
    assert "stable_softmax is solved; compare with 01_attention/reference.py:1-9" in out
    assert lesson.at == (MODULE, "causal_mask") and "boolean mask" in out


def test_a_file_that_is_no_python_is_run_and_nothing_in_it_is_called_solved(course, capsys):
    course.write("stable_softmax")
    course.tested("stable_softmax")
    lesson = course.lesson()
    course.file.write_text("def (", encoding="utf-8")
    lesson.turn(saved=True)
    assert lesson.run.names == {"causal_mask"}
    answered(lesson, wrong("causal_mask"))
    assert "is solved" not in capsys.readouterr().out
    assert lesson.header() == "01_attention [?????]"


def test_what_cannot_be_graded_yet_says_why(course, capsys):
    lesson = course.lesson()
    course.write("SelfAttention")
    lesson.turn(saved=True)
    answered(lesson, Answer(ungraded=["SelfAttention needs causal_mask, which is not started"]))
    assert "SelfAttention needs causal_mask" in capsys.readouterr().out


def test_it_ends_with_what_was_built_and_what_to_do_next(course, capsys):
    for name in NAMES:
        course.write(name)
    for name in NAMES[1:]:
        course.tested(name)
    lesson = course.lesson()
    course.tested(NAMES[0])
    answered(lesson, Answer())
    told = " ".join(capsys.readouterr().out.split())
    assert lesson.ended
    assert f"You have built {', '.join(NAMES)}." in told
    assert "jupyter lab 01_attention/notebook.ipynb" in told


class TestKeys:
    def pressed(self, course, capsys, keys: str) -> tuple[Lesson, str]:
        lesson = course.lesson()
        for key in keys:
            capsys.readouterr()
            lesson.press(key)
        return lesson, capsys.readouterr().out

    def test_h_shows_the_next_hint(self, course, capsys):
        assert "hint 1 of 3, a nudge" in self.pressed(course, capsys, "h")[1]
        assert "hint 3 of 3, nearly the code" in self.pressed(course, capsys, "hh")[1]

    def test_t_shows_the_traceback(self, course, capsys):
        course.write("stable_softmax")
        lesson = course.lesson()
        answered(lesson, wrong("stable_softmax"))
        capsys.readouterr()
        lesson.press("t")
        assert "E  because" in capsys.readouterr().out

    def test_l_lists_all_with_stars_and_state(self, course, capsys):
        course.write("causal_mask")
        course.tested("causal_mask")
        _, out = self.pressed(course, capsys, "l")
        assert re.search(r"^> stable_softmax +★ +not started$", out, re.M)
        assert re.search(r"^  causal_mask +★ +solved$", out, re.M)
        assert re.search(r"^  SelfAttention +★★★ +not started$", out, re.M)

    @pytest.mark.parametrize("keys, at", [("n", 1), ("nn", 2), ("np", 0), ("p", -1), ("x", 0)])
    def test_n_and_p_go_to_the_next_and_back(self, course, capsys, keys, at):
        assert self.pressed(course, capsys, keys)[0].at == (MODULE, NAMES[at])

    @pytest.mark.parametrize(
        "keys, state", [("ry", "not started"), ("rn", "begun"), ("r", "begun")]
    )
    def test_r_resets_after_a_yes(self, course, capsys, keys, state):
        course.write("stable_softmax")
        self.pressed(course, capsys, keys)
        assert read_exercises(course.root, MODULE, {})[0].state == state
        assert len([*course.file.parent.glob("exercises.2*.py")]) == (keys == "ry")

    def test_q_ends(self, course, capsys):
        lesson, _ = self.pressed(course, capsys, "q")
        assert lesson.ended and read_book(course.root)["at"] == f"{MODULE}.stable_softmax"


@pytest.mark.skipif(os.name == "nt", reason="its console is no pseudo-terminal")
@pytest.mark.parametrize(
    "sent, heard", [(b"", ""), (b"h", "h"), (b"ry", "ry"), (b"\x1b[A", ""), (b"\xff", "")]
)
def test_a_key_is_there_without_enter_and_the_terminal_is_left_as_it_was(monkeypatch, sent, heard):
    import pty
    import termios

    ours, theirs = pty.openpty()
    with open(theirs, encoding="utf-8") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        before = termios.tcgetattr(stdin)
        with keys.terminal():
            os.write(ours, sent)
            assert keys.pressed() == heard
        assert termios.tcgetattr(stdin) == before
    os.close(ours)


def has_size(monkeypatch: pytest.MonkeyPatch, columns: int, lines: int) -> None:
    size = os.terminal_size((columns, lines))
    monkeypatch.setattr(shutil, "get_terminal_size", lambda **_: size)  # pytest's reports ask too


class TestScreen:
    @pytest.mark.parametrize("columns, lines", [(80, 24), (60, 24), (60, 16)])
    @pytest.mark.parametrize("name", NAMES)
    def test_everything_fits(self, course, capsys, monkeypatch, name, columns, lines):
        has_size(monkeypatch, columns, lines)
        course.write("stable_softmax")
        course.tested("stable_softmax")
        lesson = course.lesson(interactive=True)
        lesson.go((MODULE, name))
        lesson.answer = Answer(block=["  a line"] * 15, traceback=["a line"] * 40)
        for key in ["x", *"hhhh", *"tttt", *"llll", "r", "n"]:
            lesson.press(key)
        screens = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out).split("\x1b[2J\x1b[H")[1:]
        assert len(screens) > 14
        for screen in screens:
            assert screen.endswith(learn.KEYS)
            assert len(screen.splitlines()) <= lines, screen
            assert max(map(len, screen.splitlines())) <= columns, screen

    def test_what_is_longer_is_turned_like_pages(self, course, capsys, monkeypatch):
        has_size(monkeypatch, 80, 24)
        lesson = course.lesson(interactive=True)
        lesson.answer = Answer(traceback=[*map(str, range(60))])
        seen = ""
        for _ in range(5):
            lesson.press("t")
            seen += capsys.readouterr().out
        assert all(re.search(rf"^{n}$", seen, re.M) for n in range(60))

    def test_without_colors_where_they_are_not_wanted(self, course, capsys, monkeypatch):
        monkeypatch.setenv("NO_COLOR", "1")
        course.lesson(interactive=True)
        assert "\x1b[1m" not in capsys.readouterr().out
