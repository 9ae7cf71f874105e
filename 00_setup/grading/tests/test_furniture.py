"""What every module's misconceptions have in common: each is one, and told from all others."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from tiny_transformer.setup.grading.diagnosis import diagnose, misconceptions, probes

ROOT = Path(__file__).parents[3]
DOORS = {  # optional arguments that a learner may leave unused
    ("multihead", "MultiHeadAttention"): ("rotate", "remember"),
    ("transformer_block", "TransformerBlock"): ("rotate", "remember"),
    ("embeddings", "TransformerEmbedding"): ("start",),
}


def topics_with(file: str) -> list[str]:
    return [path.parent.name.split("_", 1)[1] for path in sorted(ROOT.glob(f"[0-9]*_*/{file}"))]


def load(topic: str, part: str) -> ModuleType:
    return importlib.import_module(f"tiny_transformer.{topic}.{part}")


@pytest.mark.parametrize("topic", topics_with("misconceptions.py"))
def test_each_exercise_has_one_probe(topic):
    exercises = {bug.exercise for bug in misconceptions(topic)}
    assert sorted(probe.exercise for probe in probes(topic)) == sorted(exercises)


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


@pytest.mark.parametrize("topic, exercise", DOORS)
def test_no_diagnosis_speaks_of_a_door_that_is_unused(topic, exercise):
    if topic not in topics_with("misconceptions.py"):
        pytest.skip(f"{topic} is not here")

    def without_doors(part: type) -> type:
        def forward(self, *inputs, **options):
            heard = {k: v for k, v in options.items() if k not in DOORS[topic, exercise]}
            return part.forward(self, *inputs, **heard)

        return type(part.__name__, (part,), {"forward": forward})

    right = getattr(load(topic, "reference"), exercise)
    assert diagnose(topic, exercise, without_doors(right)) is None
    for bug in (bug for bug in misconceptions(topic) if bug.exercise == exercise):
        assert diagnose(topic, exercise, without_doors(bug.wrong)) in (None, bug.hint)
