"""What a learner types between lessons: `tiny-transformer learn`, `hint`, `reset` and `check`."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from tiny_transformer.setup.grading.hints import next_hint, wrapped
from tiny_transformer.setup.grading.names import find_exercise, find_module
from tiny_transformer.setup.grading.progress import (
    folders,
    graded,
    lost,
    read_exercises,
    read_results,
    report,
    to_compare,
)

ROOT = Path(__file__).resolve().parents[2]
WIDTH = 80


@dataclass(frozen=True)
class Learn:
    """The course in this terminal: runs what you are at whenever you save, and leads on."""

    module: tyro.conf.Positional[str | None] = None
    """Such as 01_attention. By default the course, from where you stopped."""

    def __call__(self) -> int:
        from tiny_transformer.setup.grading.learn import learn

        learn(ROOT, find_module(ROOT, self.module) if self.module else None)
        return 0


@dataclass(frozen=True)
class Hint:
    """Print the next hint for an exercise: a nudge, the formula, nearly the code."""

    name: tyro.conf.Positional[str]
    """Such as causal_mask, or 01_attention.causal_mask."""

    def __call__(self) -> int:
        told = next_hint(ROOT, *find_exercise(ROOT, self.name))
        print("\n".join(wrapped(told, WIDTH)))
        return 0


@dataclass(frozen=True)
class Reset:
    """Put the stub of an exercise back. Your file is kept beside it, under a name with the date."""

    name: tyro.conf.Positional[str]
    """Such as causal_mask; or a module, such as 01_attention, of which the whole file goes back."""

    def __call__(self) -> int:
        from tiny_transformer.setup.grading.reset import reset

        if self.name.strip("/\\") in folders(ROOT):
            folder, name = find_module(ROOT, self.name), None
        else:
            folder, name = find_exercise(ROOT, self.name)
        file = f"{folder}/exercises.py"
        kept = reset(ROOT, folder, name)
        if kept is None:
            print(f"nothing to do: {name or 'all'} in {file} is the stub already")
        else:
            print(f"{file} has the stub of {name or 'every exercise'} again")
            print(f"your old file is {folder}/{kept.name}")
        return 0


@dataclass(frozen=True)
class Check:
    """Run the tests of what you have begun. Exit status 1 if any of it is wrong."""

    module: tyro.conf.Positional[str | None] = None
    """Such as 01_attention. By default all."""

    def __call__(self) -> int:
        from tiny_transformer.setup.grading.worker import Answer, run

        of = [find_module(ROOT, self.module)] if self.module else folders(ROOT)
        before = read_results(ROOT)
        wanted = {}
        for folder in of:
            exercises = read_exercises(ROOT, folder, before)
            begun = {exercise.name for exercise in exercises if not exercise.stub}
            if names := begun if exercises else set(graded(ROOT, folder)):
                wanted[folder] = names
        answer = run(ROOT, wanted, WIDTH) if wanted else Answer()
        results = read_results(ROOT)
        lines = [*answer.blocks, answer.broken, *report(ROOT, of, results)]
        print("\n".join([*filter(None, lines), *to_compare(ROOT, of, before, results)]))
        lacking = any(lost(ROOT, folder) for folder in of)
        return 1 if answer.blocks or answer.broken or lacking else 0


@dataclass(frozen=True)
class Progress:
    """Print how far you are: every module's exercises, by your code and its last tests."""

    def __call__(self) -> int:
        print("\n".join(report(ROOT, folders(ROOT), read_results(ROOT))))
        return 0
