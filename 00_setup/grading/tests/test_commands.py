"""What a learner types: names as they are meant, hints one at a time, the way back to a stub."""

import shutil
from pathlib import Path

import pytest

from tiny_transformer.setup.grading import names
from tiny_transformer.setup.grading.hints import hints, in_a_line, next_hint
from tiny_transformer.setup.grading.names import find_exercise, find_module
from tiny_transformer.setup.grading.progress import folders, graded, read_exercises
from tiny_transformer.setup.grading.reset import reset, stubs_of

ROOT = Path(__file__).parents[3]
STEPS = ["a nudge", "the formula", "nearly the code"]


class TestNames:
    @pytest.mark.parametrize("text", ["causal_mask", "01_attention.causal_mask"])
    def test_an_exercise_is_found_with_and_without_its_module(self, text):
        assert find_exercise(ROOT, text) == ("01_attention", "causal_mask")

    @pytest.mark.parametrize(
        "text, meant",
        [("casual_mask", "causal_mask"), ("causalmask", "causal_mask"), ("Gelu", "gelu")],
    )
    def test_of_a_misspelt_one_the_likeliest_is_told(self, text, meant):
        with pytest.raises(ValueError, match=f"no exercise is called {text}; did you mean {meant}"):
            find_exercise(ROOT, text)

    def test_one_that_two_modules_have_takes_the_module_s_name(self, monkeypatch):
        monkeypatch.setattr(names, "graded", lambda root, folder: ["train"])
        monkeypatch.setattr(names, "folders", lambda root: ["01_a", "02_b"])
        with pytest.raises(ValueError, match=r"write 01_a\.train or 02_b\.train$"):
            find_exercise(ROOT, "train")
        assert find_exercise(ROOT, "02_b.train") == ("02_b", "train")

    @pytest.mark.parametrize("text", ["01_attention", "01", "1", "attention", "01_attention/"])
    def test_a_module_is_found_by_any_part_of_its_name(self, text):
        assert find_module(ROOT, text) == "01_attention"

    def test_of_a_misspelt_module_the_likeliest_is_told(self):
        with pytest.raises(ValueError, match="did you mean 01_attention"):
            find_module(ROOT, "01_atention")


class TestHints:
    @pytest.mark.parametrize("folder", folders(ROOT))
    def test_every_exercise_has_its_three_in_their_order(self, folder):
        found = hints(ROOT, folder)
        assert set(found) == set(graded(ROOT, folder))
        for hint in found.values():
            assert [*hint.steps][:3] == STEPS and set(hint.stars) == {"★"}

    @pytest.mark.parametrize("folder", folders(ROOT))
    def test_a_terminal_can_show_them(self, folder):
        for hint in hints(ROOT, folder).values():
            for step in hint.steps.values():
                assert step and not {"$", "\\", "<summary>", "details"} & {*step, *step.split("<")}

    @pytest.mark.parametrize(
        "math, told",
        [
            (r"\pm 1/\sqrt{d_\text{in}}", "± 1/√(d_in)"),
            (r"\tfrac1d \sum_i x_i^2", "1/d Σ_i x_i^2"),
            (r"M_{ts} = [s \le t]", "M_(ts) = [s ≤ t]"),
            (r"\max_j a_j", "max_j a_j"),
        ],
    )
    def test_mathematics_is_written_in_a_line(self, math, told):
        assert in_a_line(math) == told

    def test_each_call_goes_one_step_further_and_then_all_are_told(self, tmp_path):
        (tmp_path / "01_attention").mkdir()
        shutil.copy(ROOT / "01_attention" / "theory.md", tmp_path / "01_attention")
        told = [next_hint(tmp_path, "01_attention", "causal_mask") for _ in range(5)]
        for i, step in enumerate(STEPS):
            assert told[i].startswith(f"hint {i + 1} of 3, {step}:\n") and "\n\n" not in told[i]
        assert told[3] == told[4] == "\n\n".join(told[:3])
        assert next_hint(tmp_path, "01_attention", "stable_softmax").startswith("hint 1 of 3")


@pytest.fixture
def course(tmp_path):
    """A module as it comes with the course, and solved."""
    folder = tmp_path / "01_attention"
    stubs = stubs_of(tmp_path, "01_attention")
    stubs.parent.mkdir(parents=True)
    shutil.copytree(ROOT / "01_attention" / "tests", folder / "tests")
    shutil.copy(stubs_of(ROOT, "01_attention"), stubs)
    shutil.copy(folder / "tests" / "solved.py", folder / "exercises.py")
    return tmp_path


class TestReset:
    def text(self, course):
        return (course / "01_attention" / "exercises.py").read_text(encoding="utf-8")

    def states(self, course):
        return {e.name: e.state for e in read_exercises(course, "01_attention", {})}

    @pytest.mark.parametrize("name", graded(ROOT, "01_attention"))
    def test_one_exercise_is_the_stub_again_and_the_others_are_as_they_were(self, course, name):
        before = self.states(course)
        reset(course, "01_attention", name)
        assert self.states(course) == before | {name: "not started"}

    def test_one_after_the_other_gives_the_stubs_of_the_file(self, course):
        for name in graded(ROOT, "01_attention"):
            reset(course, "01_attention", name)
        stubs = stubs_of(course, "01_attention").read_text(encoding="utf-8")
        assert stubs[stubs.index("def ") :] == self.text(course)[self.text(course).index("def ") :]

    def test_the_old_file_is_kept_beside_it_however_often(self, course):
        old, kept = self.text(course), []
        for name in ("causal_mask", "SelfAttention"):
            kept.append(reset(course, "01_attention", name))
        assert kept[0].read_text(encoding="utf-8") == old
        assert len({*kept}) == 2 and {file.parent.name for file in kept} == {"01_attention"}

    def test_of_a_stub_nothing_is_to_be_done(self, course):
        reset(course, "01_attention", "causal_mask")
        assert reset(course, "01_attention", "causal_mask") is None

    def test_an_exercise_that_was_renamed_comes_back_at_the_end(self, course):
        file = course / "01_attention" / "exercises.py"
        file.write_text(self.text(course).replace("causal_mask", "my_mask"), encoding="utf-8")
        reset(course, "01_attention", "causal_mask")
        assert self.states(course)["causal_mask"] == "not started"

    def test_in_a_file_that_is_no_python_only_the_whole_can_be_put_back(self, course):
        file = course / "01_attention" / "exercises.py"
        file.write_text(self.text(course) + "def (\n", encoding="utf-8")
        with pytest.raises(ValueError, match=r"exercises.py:\d+ is no Python.*reset 01_attention"):
            reset(course, "01_attention", "causal_mask")
        assert reset(course, "01_attention").read_text(encoding="utf-8").endswith("def (\n")
        assert set(self.states(course).values()) == {"not started"}

    def test_a_file_that_is_gone_comes_back_whole(self, course):
        (course / "01_attention" / "exercises.py").unlink()
        assert reset(course, "01_attention") is None
        assert set(self.states(course).values()) == {"not started"}
