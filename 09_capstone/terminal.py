"""Standard output and standard error as a command needs them: a run outlives whoever reads along.

A reader may go away (`train | head`), the disk behind a log be full, a terminal be closed, or know
fewer characters than the text has.
"""

import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

PLAIN = "\n\t\u200c\u200d"  # the last two join letters: Persian and Hindi are misspelled without


@contextmanager
def standard_streams(patient: bool = False, exact: bool = False) -> Iterator[None]:
    """Meanwhile both streams are there, and fail as a command should.

    What cannot be written is dropped where the command is `patient`, and on standard error, where
    nobody could be told. Elsewhere a reader that goes away ends the command in silence. Characters
    that the encoding lacks become question marks; where a file or pipe is to be `exact`, an error.

    Raises:
        OSError: says that standard output could not be written, at the latest when this ends.
        ValueError: names the character that standard output cannot take.
    """
    before = sys.stdout, sys.stderr
    exact = exact and sys.stdout is not None and not sys.stdout.isatty()
    sys.stdout = Stream(sys.stdout, "standard output", patient, exact)
    sys.stderr = Stream(sys.stderr, "standard error", patient=True, exact=True)  # Python escapes
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    finally:
        sys.stdout, sys.stderr = before


class Stream:
    """A standard stream, or nothing in its place where it is closed."""

    def __init__(self, stream: TextIO | None, name: str, patient: bool, exact: bool):
        # The new file takes the descriptor too: else that would go to the next file a run opens,
        # and what PyTorch has to say to its end.
        self.stream = stream or open(os.devnull, "w", encoding="utf-8")
        self.name, self.patient, self.exact = name, patient, exact

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        encoding = self.stream.encoding
        if encoding and not self.exact:
            text = text.encode(encoding, "replace").decode(encoding)
        with self.noticing():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self.noticing():
            self.stream.flush()

    @contextmanager
    def noticing(self) -> Iterator[None]:
        try:
            yield
        except UnicodeEncodeError as error:
            character = error.object[error.start]
            raise ValueError(
                f"{self.name} is in {self.stream.encoding}, which has no {character!r} "
                f"(U+{ord(character):04X}): set PYTHONIOENCODING=utf-8"
            ) from None
        except OSError as error:
            self.drop()
            if isinstance(error, BrokenPipeError) and not self.patient:
                raise SystemExit(141) from None  # the reader has seen enough: as SIGPIPE would
            if not self.patient:
                raise OSError(error.errno, error.strerror, self.name) from None

    def drop(self) -> None:
        """Let what is written from now on, and what still waits for it, go nowhere."""
        with suppress(OSError), open(os.devnull, "wb") as nowhere:  # a stream without a descriptor
            os.dup2(nowhere.fileno(), self.stream.fileno())


class Voice:
    """Says a text on standard output piece by piece, and in the end what of it is unsaid.

    A file or a pipe is to be exact. It waits for the end where the pieces are not `sure`, or where
    not all of the characters that may come can be written: then nothing is.
    """

    def __init__(self, sure: bool = True):
        self.terminal = sys.stdout.isatty()
        self.waits = not (sure or self.terminal)
        self.said = ""

    def expect(self, characters: str) -> None:
        try:
            characters.encode(sys.stdout.encoding or "utf-8")
        except UnicodeEncodeError:
            self.waits = self.waits or not self.terminal

    def say(self, piece: str) -> None:
        if not self.waits:
            self.said += piece
            print(self.shown(piece), end="", flush=True)

    def end(self, text: str) -> None:
        if not text.startswith(self.said):  # pieces that were not sure: once more
            print()
        print(self.shown(text.removeprefix(self.said)))

    def shown(self, text: str) -> str:
        return visible(text) if self.terminal else text


def visible(text: str) -> str:
    r"""The text for a terminal, which would obey control characters: "\x1b[2J" clears it."""
    return "".join(
        character.encode("unicode_escape").decode()
        if character not in PLAIN and unicodedata.category(character) in ("Cc", "Cf")
        else character
        for character in text
    )
