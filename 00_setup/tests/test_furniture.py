"""What every module's furniture has in common: exercises, examples and misconceptions that fit."""

import doctest
import importlib
import inspect
from pathlib import Path
from types import ModuleType

import pytest

from tiny_transformer.setup.diagnosis import diagnose, misconceptions

ROOT = Path(__file__).parents[2]


def topics_with(file: str) -> list[str]:
    return [path.parent.name.split("_", 1)[1] for path in sorted(ROOT.glob(f"[0-9]*_*/{file}"))]


def load(topic: str, part: str) -> ModuleType:
    return importlib.import_module(f"tiny_transformer.{topic}.{part}")


def exercises_of(topic: str) -> dict[str, object]:
    module = load(topic, "exercises")
    return {
        name: thing
        for name, thing in vars(module).items()
        if getattr(thing, "__module__", None) == module.__name__ and not name.startswith("_")
    }


@pytest.mark.parametrize("topic", topics_with("exercises.py"))
def test_an_exercise_takes_what_the_reference_takes(topic):
    for name, exercise in exercises_of(topic).items():
        ours = inspect.signature(exercise).parameters
        theirs = inspect.signature(getattr(load(topic, "reference"), name)).parameters
        assert list(ours.values()) == list(theirs.values())[: len(ours)], name


@pytest.mark.parametrize("topic", topics_with("exercises.py"))
def test_an_exercise_s_example_is_true_of_the_reference(topic):
    names = vars(load(topic, "exercises")) | vars(load(topic, "reference"))
    runner = doctest.DocTestRunner()
    for name, exercise in exercises_of(topic).items():
        for example in doctest.DocTestFinder().find(exercise, name, globs=dict(names)):
            runner.run(example)
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize("topic", topics_with("misconceptions.py"))
def test_the_reference_is_free_of_known_bugs(topic):
    for name in {bug.exercise for bug in misconceptions(topic)}:
        assert diagnose(topic, name, getattr(load(topic, "reference"), name)) is None, name


@pytest.mark.parametrize(
    "topic, index",
    [
        (topic, i)
        for topic in topics_with("misconceptions.py")
        for i in range(len(misconceptions(topic)))
    ],
)
def test_a_known_bug_is_diagnosed_as_itself(topic, index):
    bug = misconceptions(topic)[index]
    assert diagnose(topic, bug.exercise, bug.wrong) == bug.hint
