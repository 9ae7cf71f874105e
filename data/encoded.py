"""A text of any size as numbers: a short one in memory, a long one in a file mapped into it.

That file is made once and lies beside the text, `my.txt.tokens`. It has the format of safetensors,
and its header tells of which text it was made.
"""

import glob
import hashlib
import json
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm.auto import tqdm

from tiny_transformer.data.corpus import PIECE, CorpusError, opened, pieces, prepare

SHORT = 10_000_000  # bytes of a text that is encoded at each start, in less than a second
CODES = 0x110000  # of Unicode
# In safetensors. PyTorch can do little with uint16.
NAMES = {"uint8": "U8", "int16": "I16", "int32": "I32"}


@dataclass(frozen=True)
class EncodedText:
    """The distinct characters of a text, sorted; an id is a place among them."""

    characters: str
    sha256: str  # of the text as `load_text` gives it, in UTF-8
    kept: Tensor | Path

    def tokens(self) -> Tensor:
        """The ids (N,), of a type no larger than they need; F.embedding takes them as int64.

        Those in a file are read when they are looked at, and all processes share them.
        """
        if isinstance(self.kept, Tensor):
            return self.kept
        with safe_open(self.kept, "pt") as file:
            if (file.metadata() or {}).get("sha256") == self.sha256:
                return file.get_tensor("tokens")
        raise CorpusError(f"{self.kept} is of another text by now: start again")

    def in_memory(self) -> "EncodedText":
        """The same for another machine, which has not this file."""
        return EncodedText(self.characters, self.sha256, self.tokens().clone())


def encode_text(path: Path | str | None = None) -> EncodedText:
    """`load_text(path)` as ids; tiny Shakespeare by default.

    Of a long text never more than a piece is in memory.

    Raises:
        CorpusError: as `load_text`; or if the text changes meanwhile, or its ids have no place.
    """
    path = prepare() if path is None else Path(path)
    state = state_of(path)
    places = places_for(path) if state[0] > SHORT else []
    for place in places:
        clear_leftovers(place)
        if text := kept_at(place, state):
            return text
    characters, length, sha256 = read_through(path)
    size = len(characters)
    kind = np.dtype(np.uint8 if size <= 2**8 else np.int16 if size <= 2**15 else np.int32)

    def ids() -> Iterator[np.ndarray]:
        table, done = np.zeros(CODES, kind), 0
        table[codes(characters)] = np.arange(size)
        for piece in shown(path, "encoding the text"):
            done += len(piece)
            yield table[codes(piece)]
        if done != length or state_of(path) != state:
            raise CorpusError(f"corpus {path} has changed while it was read: start again")

    if not places:
        return EncodedText(characters, sha256, torch.from_numpy(np.concatenate([*ids()])))
    told = {"state": str(state), "sha256": sha256, "characters": characters}
    reasons = []
    for place in places:
        try:
            keep(place, told, kind, length, ids())
            return EncodedText(characters, sha256, place)
        except OSError as error:
            reasons.append(f"{place} cannot be written ({error.strerror})")
    raise CorpusError(
        f"corpus {path} needs {length * kind.itemsize / 1e9:.1f} GB for its ids: "
        f"{', and '.join(reasons)}"
    )


def state_of(path: Path) -> tuple[int, int]:
    """Size and time: a text that was changed has another."""
    with opened(path) as file:
        now = os.fstat(file.fileno())
    return now.st_size, now.st_mtime_ns


def places_for(path: Path) -> list[Path]:
    """Beside the text, or in the user's cache where its folder cannot be written."""
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
    cache = user_cache_path("tiny_transformer")
    return [path.with_name(f"{path.name}.tokens"), cache / f"{name}.tokens"]


def read_through(path: Path) -> tuple[str, int, str]:
    """The distinct characters of the text, its length and its hash."""
    seen, length, sha256 = np.zeros(CODES, bool), 0, hashlib.sha256()
    for piece in shown(path, "reading the text"):
        seen[codes(piece)] = True
        length += len(piece)
        sha256.update(piece.encode())
    return "".join(map(chr, seen.nonzero()[0])), length, sha256.hexdigest()


def shown(path: Path, what: str) -> Iterator[str]:
    """The pieces of the text, with a progress bar if that takes longer than a second."""
    total = path.stat().st_size // PIECE + 1
    return tqdm(pieces(path), what, total, leave=False, unit="MiB", delay=1)


def codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), "<u4")


def keep(
    place: Path, told: dict[str, str], kind: np.dtype, length: int, ids: Iterator[np.ndarray]
) -> None:
    """Write the whole file or none of it, whatever interrupts."""
    new = place.with_name(f"{place.name}.{os.getpid()}.new")
    checksum = zlib.crc32(described(told, kind))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with new.open("wb") as file:
            file.write(header(told, kind, length, 0))
            for part in ids:
                file.write(part)
                checksum = zlib.crc32(part, checksum)
            file.seek(0)
            file.write(header(told, kind, length, checksum))
        os.replace(new, place)
    finally:
        new.unlink(missing_ok=True)


def header(told: dict[str, str], kind: np.dtype, length: int, checksum: int) -> bytes:
    tokens = {
        "dtype": NAMES[kind.name],
        "shape": [length],
        "data_offsets": [0, length * kind.itemsize],
    }
    told = {**told, "crc32": f"{checksum:08x}"}
    table = json.dumps({"__metadata__": told, "tokens": tokens}).encode()
    table += b" " * (-len(table) % 8)  # the ids behind it are aligned
    return struct.pack("<Q", len(table)) + table


def kept_at(place: Path, state: tuple[int, int]) -> EncodedText | None:
    """What `keep` wrote, if it is whole and of this text."""
    try:
        with safe_open(place, "pt") as file:
            told, tokens = file.metadata() or {}, file.get_tensor("tokens")
        expected = told.pop("crc32", None)
        if told.get("state") != str(state):
            return None
        checksum = zlib.crc32(described(told, tokens.numpy().dtype))
        with place.open("rb") as file:  # not through the map, whose pages would stay
            file.seek(-tokens.nbytes, os.SEEK_END)
            while part := file.read(PIECE):
                checksum = zlib.crc32(part, checksum)
    except (OSError, SafetensorError):
        return None
    whole = f"{checksum:08x}" == expected
    return EncodedText(told["characters"], told["sha256"], place) if whole else None


def described(told: dict[str, str], kind: np.dtype) -> bytes:
    return json.dumps([told, kind.name], sort_keys=True).encode()


def clear_leftovers(place: Path) -> None:
    """Delete what processes left that were killed while they wrote."""
    for new in place.parent.glob(f"{glob.escape(place.name)}.*.new"):
        writer = new.name.split(".")[-2]
        if writer.isdecimal() and not psutil.pid_exists(int(writer)):
            with suppress(OSError):
                new.unlink()
