"""The course in one terminal, one exercise at a time: `tiny-transformer learn`.

It runs the tests of what you are at whenever you save, shows what is wrong, and moves on when
nothing is. Without a terminal it prints the same, one thing after the other, and takes no keys.
"""

import ast
import os
import shutil
import sys
import textwrap
import time
from contextlib import nullcontext
from pathlib import Path

from watchfiles import Change, watch

from tiny_transformer.setup.grading import keys
from tiny_transformer.setup.grading.blocks import indented
from tiny_transformer.setup.grading.hints import hints, next_hint, wrapped
from tiny_transformer.setup.grading.progress import (
    SIGNS,
    Exercise,
    definitions,
    folders,
    graded,
    outcome,
    read_book,
    read_exercises,
    remember,
    solution,
)
from tiny_transformer.setup.grading.reset import reset, stubs_of
from tiny_transformer.setup.grading.worker import Answer, Run, Wanted

KEYS = "h hint  t traceback  l list  n next  p back  r reset  q quit"
PATIENCE = 2.0  # seconds after which it is said that the tests still run
BOLD, GREEN = "1", "32"  # readable on light and on dark
Place = tuple[str, str]  # folder and name of an exercise


def learn(root: Path, module: str | None = None) -> None:
    """Lead through a module, or through the course from where the learner stopped."""
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    of = [module] if module else folders(root)
    changes = watch(
        *(root / folder for folder in of),
        watch_filter=is_exercises,
        recursive=False,
        step=50,
        rust_timeout=50,
        yield_on_timeout=True,
    )
    next(changes)  # from here on no save is missed
    lesson = Lesson(root, of, interactive)
    Run.prepare()
    try:
        with keys.terminal() if interactive else nullcontext():
            lesson.begin()
            while not lesson.ended:
                lesson.turn(saved=bool(next(changes)))
    except KeyboardInterrupt:
        print()
    finally:
        lesson.stop()


def is_exercises(_: Change, path: str) -> bool:
    return Path(path).name == "exercises.py"


class Lesson:
    """Where a learner is, what is known of it, and what they have asked to see."""

    def __init__(self, root: Path, of: list[str], interactive: bool):
        self.root, self.folders, self.interactive = root, of, interactive
        self.ended = False
        self.run: Run | None = None
        self.answer = Answer()
        self.news: list[str] = []  # what has just been solved
        self.asks_reset = False
        self.last_key, self.page = "", 0
        self.exercises: dict[Place, Exercise] = {}
        self.read()
        self.at = self.first()
        self.shown: Place | None = None  # what was printed last, where there is no terminal

    def read(self) -> None:
        """The exercises, as their files and the last tests have them now."""
        results = read_book(self.root)["results"]
        before, self.exercises, self.broken = self.exercises, {}, set()
        for folder in self.folders:
            found = {(folder, e.name): e for e in read_exercises(self.root, folder, results)}
            if not found:  # a file that cannot be parsed counts as it was
                self.broken.add(folder)
                found = {place: e for place, e in before.items() if place[0] == folder}
            self.exercises |= found
        self.places = [
            (folder, name) for folder in self.folders for name in ordered(self.root, folder)
        ]

    def first(self) -> Place | None:
        """Where they stopped, or else the first that is not solved."""
        folder, _, name = read_book(self.root)["at"].partition(".")
        if (folder, name) in self.places and not self.solved((folder, name)):
            return folder, name
        return self.unsolved_after((folder, name))

    def solved(self, place: Place) -> bool:
        exercise = self.exercises.get(place)
        return bool(exercise) and exercise.state == "solved" and place[0] not in self.broken

    def unsolved_after(self, place: Place) -> Place | None:
        here = self.places.index(place) + 1 if place in self.places else 0
        order = self.places[here:] + self.places[:here]
        return next((other for other in order if not self.solved(other)), None)

    def begin(self) -> None:
        if self.at is None:
            self.end()
        else:
            self.go(self.at)

    def turn(self, saved: bool) -> None:
        """A twentieth of a second: what was saved, what has been found out, what was pressed."""
        if saved:
            self.saved()
        if self.run and (answer := self.run.answer()) is not None:
            self.found(answer)
        elif self.run and not self.late and time.monotonic() > self.run.begun + PATIENCE:
            self.late = True
            self.show(["  running its tests ... To save again stops them."])
        for key in keys.pressed() if self.interactive else "":
            if not self.ended:
                self.press(key)

    def go(self, place: Place, saved: bool = False) -> None:
        self.at, self.answer, self.asks_reset = place, Answer(), False
        remember(self.root, lambda book: book.update(at=".".join(place)))
        self.test(saved)
        self.show()

    def saved(self) -> None:
        before = {place: exercise.code for place, exercise in self.exercises.items()}
        self.read()
        changed = [p for p in self.places if p in self.exercises and p in before]
        changed = [p for p in changed if before[p] != self.exercises[p].code]
        self.news = []
        if changed and self.at not in changed:
            self.go(changed[0], saved=True)
        else:
            self.test(saved=True)

    def test(self, saved: bool = False) -> None:
        """Run what they are at and what it calls; without hurry also what else is untested."""
        self.stop()
        here = self.exercises.get(self.at)
        if here is not None and here.state == "solved" and not saved:
            return
        folder, name = self.at
        stub = here is not None and here.stub and folder not in self.broken
        names = set() if stub else {name}
        for (where, other), exercise in self.exercises.items():
            called = here is not None and other in here.uses and exercise.state == "begun"
            if where == folder and (called or exercise.untested and not saved):
                names.add(other)
        if names & set(graded(self.root, folder)):
            self.run, self.late = Run(self.root, {folder: names}, self.width), False
        elif saved and self.answer != Answer():
            self.answer = Answer()
            self.show()

    def found(self, answer: Answer) -> None:
        wanted: Wanted = self.run.wanted
        self.stop()
        self.answer = answer
        self.read()
        places = [(folder, name) for folder, names in wanted.items() for name in names]
        self.news += [
            f"{name} is solved; compare with {solution(self.root, folder, name)}"
            for folder, name in sorted(filter(self.solved, places), key=self.places.index)
        ]
        if answer.first and answer.first != self.at:
            self.at = answer.first
            remember(self.root, lambda book: book.update(at=".".join(self.at)))
        if not self.solved(self.at):
            self.show()
        elif (coming := self.unsolved_after(self.at)) is None:
            self.end()
        else:
            if coming[0] != self.at[0] and all(map(self.solved, self.in_module(self.at[0]))):
                self.news.append(
                    f"{self.at[0]} is yours, all of it. Play with it: "
                    f"jupyter lab {self.at[0]}/notebook.ipynb"
                )
            self.go(coming)

    def in_module(self, folder: str) -> list[Place]:
        return [place for place in self.places if place[0] == folder]

    def press(self, key: str) -> None:
        self.news = []
        self.page = self.page + 1 if key == self.last_key else 0
        self.last_key = key
        here = self.places.index(self.at)
        if self.asks_reset:
            self.asks_reset = False
            if key == "y":
                self.reset()
            else:
                self.show()
        elif key == "q":
            self.ended = True
            print()
        elif key == "h":
            self.show(self.hint())
        elif key == "t":
            self.show(self.traceback(), more=key)
        elif key == "l":
            self.show(self.listing(), more=key)
        elif key in "np":
            self.go(self.places[(here + (1 if key == "n" else -1)) % len(self.places)])
        elif key == "r":
            self.asks_reset = True
            self.show([f"Put the stub of {self.at[1]} back? Your file is kept beside it. y or n"])
        else:
            self.show()

    def hint(self) -> list[str]:
        return wrapped(next_hint(self.root, *self.at), self.width)

    def traceback(self) -> list[str]:
        if not self.answer.traceback:
            return ["  There is none: none of its tests has failed when they last ran."]
        return [*self.answer.block, "", *self.answer.traceback]

    def listing(self) -> list[str]:
        lines, here = [], self.folders.index(self.at[0])
        for folder in self.folders[here:] + self.folders[:here]:
            lines += ["", folder]
            stars = {name: hint.stars for name, hint in hints(self.root, folder).items()}
            for place in self.in_module(folder):
                exercise = self.exercises.get(place)
                state = exercise.state if exercise else "not in exercises.py"
                sign = ">" if place == self.at else " "
                lines.append(f"{sign} {place[1]:30}{stars.get(place[1], ''):5}{state}")
        return lines[1:]

    def reset(self) -> None:
        try:
            kept = reset(self.root, *self.at)
        except ValueError as error:
            self.show([str(error)])
            return
        self.read()
        if kept is None:
            self.show([f"{self.at[1]} is the stub already."])
        else:
            self.news = [f"The stub is back; your old file is {self.at[0]}/{kept.name}"]
            self.go(self.at)

    def stop(self) -> None:
        if self.run:
            self.run.stop()
        self.run = None

    def end(self) -> None:
        """What they have built, and what to run next."""
        self.ended = True
        lines = [*fitted(self.news, self.width), ""] if self.news else []
        if len(self.folders) == 1:
            folder = self.folders[0]
            names = ", ".join(name for _, name in self.places)
            lines += textwrap.wrap(f"{folder} is solved. You have built {names}.", self.width)
            lines += ["", f"Play with it: jupyter lab {folder}/notebook.ipynb"]
            after = [other for other in folders(self.root) if other > folder][:1]
            lines += [
                f"Then read {other}/theory.md, and: tiny-transformer learn" for other in after
            ]
        else:
            told = (
                f"All {len(self.places)} exercises are solved. You have built a transformer "
                "language model from nothing: attention and its mask, the blocks, the tokenizer "
                "and the positions, the training loop with its optimizer, sampling with a "
                "cache, and checkpoints that survive a crash."
            )
            lines += textwrap.wrap(told, self.width)
            lines += ["", "Now train it, every part your own:"]
            lines += ["    tiny-transformer train --mine", "    tiny-transformer sample --mine"]
        if self.interactive:
            print("\x1b[2J\x1b[H", end="")
        self.print(lines)

    # What is on the screen.

    @property
    def width(self) -> int:
        return min(100, shutil.get_terminal_size().columns)

    def show(self, asked: list[str] | None = None, more: str = "t") -> None:
        """The exercise with what is wrong, or with what was `asked` for.

        It fits the screen: of what is longer the key `more` shows the next page.
        """
        body = fitted(self.body() if asked is None else asked, self.width)
        news = fitted(self.news, self.width)
        top = [self.header(), "", *(self.paint(line, GREEN) for line in news)]
        top += [""] if news else []
        top += [*self.title(), ""]
        if not self.interactive:
            self.print([*(top[2:] if self.news or self.shown != self.at else []), *body, ""])
            self.shown, self.news = self.at, []
            return
        room = max(3, shutil.get_terminal_size().lines - len(top) - 2)
        if len(body) > room:
            pages = [body[i : i + room - 1] for i in range(0, len(body), room - 1)]
            page = self.page % len(pages)
            body = [*pages[page], f"  page {page + 1} of {len(pages)}: {more} for the next"]
        print("\x1b[2J\x1b[H", end="")
        self.print([*top, *body, ""])
        keys = "  ".join(f"{self.paint(key[0], BOLD)}{key[1:]}" for key in KEYS.split("  "))
        print(keys, end="", flush=True)

    def header(self) -> str:
        folder, _ = self.at
        of = self.in_module(folder)
        if folder in self.broken:
            return f"{folder} [{'?' * len(of)}]"
        states = [self.exercises[p].state if p in self.exercises else "missing" for p in of]
        bar = "".join(SIGNS.get(state, "?") for state in states)
        told = f"{folder} [{bar}] {states.count('solved')} of {len(of)}"
        if len(self.folders) > 1:
            told += f", the course {sum(map(self.solved, self.places))} of {len(self.places)}"
        return told

    def title(self) -> list[str]:
        folder, name = self.at
        exercise = self.exercises.get(self.at)
        hint = hints(self.root, folder).get(name)
        stars = hint.stars if hint else ""
        where = f"{exercise.file}:{exercise.line}" if exercise else f"{folder}/exercises.py"
        bold = f"{self.paint(name, BOLD)} {stars}"
        fits = len(f"{name} {stars}  {where}") <= self.width
        return [f"{bold}  {where}"] if fits else [bold, where]

    def body(self) -> list[str]:
        """What there is to say of the exercise: what is wrong, or what it asks for."""
        folder, name = self.at
        exercise = self.exercises.get(self.at)
        if self.answer.block:
            return self.answer.block
        if self.answer.broken:
            return self.answer.broken.splitlines()[-12:]
        if exercise is None and definitions(self.root / folder / "exercises.py"):
            return [f"  {folder}/exercises.py has no {name}; r puts the stub back"]
        if exercise is not None and exercise.stub:
            return asks(self.root, folder, name, self.width)
        if self.answer.ungraded:
            return wrapped("\n".join(self.answer.ungraded[:3]), self.width)
        if self.solved(self.at):
            return [f"  solved; compare with {solution(self.root, folder, name)}"]
        return ["  running its tests ..." if self.run else f"  begun{outcome(exercise)}"]

    def print(self, lines: list[str]) -> None:
        print("\n".join(lines), flush=True)

    def paint(self, text: str, color: str) -> str:
        plain = not self.interactive or "NO_COLOR" in os.environ
        return text if plain else f"\x1b[{color}m{text}\x1b[0m"


def fitted(lines: list[str], width: int) -> list[str]:
    """The lines, of which those that are too long go on below, as far to the right."""
    return [
        part
        for line in lines
        for part in textwrap.wrap(
            line, width, subsequent_indent=" " * (len(line) - len(line.lstrip()))
        )
        or [""]
    ]


def ordered(root: Path, folder: str) -> list[str]:
    """The exercises of a module in the order of its page; then those of which it has no hints."""
    known = graded(root, folder)
    return sorted(known, key=[*hints(root, folder), *known].index)


def asks(root: Path, folder: str, name: str, width: int) -> list[str]:
    """The docstring of a stub: what it asks for."""
    doc = ast.get_docstring(definitions(stubs_of(root, folder))[name]) or ""
    lines = []
    for paragraph in doc.lstrip("★ ").split("\n\n"):
        prose = not paragraph.startswith((">", " "))
        lines += indented([paragraph] if prose else paragraph.splitlines(), width)
        lines.append("")
    return lines[:-1]
