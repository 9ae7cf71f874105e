"""A text in its file of ids is what a tokenizer would encode, whatever happens to either."""

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tiny_transformer.data import corpus, encoded
from tiny_transformer.data.corpus import CorpusError, load_text
from tiny_transformer.data.encoded import EncodedText, encode_text
from tiny_transformer.embeddings.reference import CharTokenizer

PLAY = "First Citizen:\nSpeak, speak.\n"
TEXTS = {
    "ASCII": PLAY.encode(),
    "two, three and four bytes a character": "Käse, ★★ und 🙂🙂\n".encode(),
    "line ends": b"one\r\ntwo\r\rthree\n\r\n\r",
    "byte order mark": b"\xef\xbb\xbf\xef\xbb\xbfmarked\r\n",
    "one character": b"\r",
}


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A text that counts as long, in a folder of its own beside the user's cache."""
    monkeypatch.setattr(encoded, "SHORT", 0)
    monkeypatch.setattr(encoded, "user_cache_path", lambda _: tmp_path / "cache")
    path = tmp_path / "texts" / "mine.txt"
    path.parent.mkdir()
    path.write_text(PLAY, encoding="utf-8")
    return path


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir())


def assert_is_encoded(text: EncodedText, path: Path) -> None:
    whole = load_text(path)
    tokenizer = CharTokenizer(whole)
    assert list(text.characters) == tokenizer.characters
    assert text.sha256 == hashlib.sha256(whole.encode()).hexdigest()
    assert text.tokens().tolist() == tokenizer.encode(whole)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 2**20])
@pytest.mark.parametrize("content", TEXTS.values(), ids=TEXTS)
def test_it_is_the_text_wherever_its_pieces_end(long, monkeypatch, content, size):
    monkeypatch.setattr(corpus, "PIECE", size)
    long.write_bytes(content)
    text = content.decode().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    assert load_text(long) == text
    assert [load_text(long, n) for n in (1, 5)] == [text[:1], text[:5]]
    assert_is_encoded(encode_text(long), long)
    assert_is_encoded(encode_text(long), long)  # from its file
    assert names(long) == ["mine.txt", "mine.txt.tokens"]


@pytest.mark.parametrize("size", [1, 2, 5, 2**20])
@pytest.mark.parametrize("content, at", [(b"ab\xe9 noir", 2), (b"\xef\xbb\xbfab\xe2\x98", 5)])
def test_what_is_not_utf_8_is_told_with_its_place_in_the_file(long, monkeypatch, content, at, size):
    monkeypatch.setattr(corpus, "PIECE", size)
    long.write_bytes(content)
    for read in (load_text, encode_text):
        with pytest.raises(CorpusError, match=rf"is not UTF-8 at byte {at} \(0x{content[at]:02x}"):
            read(long)
    assert names(long) == ["mine.txt"]


def test_an_empty_text_is_an_error(long):
    long.write_bytes(b"")
    with pytest.raises(CorpusError, match="mine.txt is empty"):
        encode_text(long)


@pytest.mark.parametrize(
    "characters, kind", [(256, torch.uint8), (257, torch.int16), (32_769, torch.int32)]
)
@pytest.mark.parametrize("short", [True, False])
def test_ids_are_of_a_type_that_has_room_for_them(long, monkeypatch, characters, kind, short):
    monkeypatch.setattr(encoded, "SHORT", 10**6 if short else 0)
    long.write_text("".join(map(chr, range(0x10000, 0x10000 + characters))), encoding="utf-8")
    tokens = encode_text(long).tokens()
    assert tokens.dtype == kind
    assert torch.equal(tokens.long(), torch.arange(characters))


def test_a_short_text_has_no_file(long, monkeypatch):
    monkeypatch.setattr(encoded, "SHORT", len(PLAY))
    assert_is_encoded(encode_text(long), long)
    assert names(long) == ["mine.txt"]


def test_a_long_text_is_read_once(long, monkeypatch):
    first = encode_text(long)
    monkeypatch.setattr(encoded, "pieces", lambda _: pytest.fail("it is read again"))
    assert encode_text(long) == first


@pytest.mark.parametrize("same", ["size", "time"])
def test_a_text_that_has_changed_is_encoded_anew(long, same):
    encode_text(long)
    before = long.stat()
    long.write_text(PLAY[::-1] if same == "size" else PLAY + PLAY, encoding="utf-8")
    later = before.st_mtime_ns + (1 if same == "size" else 0)
    os.utime(long, ns=(before.st_atime_ns, later))
    assert_is_encoded(encode_text(long), long)


def test_a_text_that_changes_meanwhile_is_an_error(long, monkeypatch):
    original = encoded.read_through

    def read_and_write(path):
        found = original(path)
        path.write_text(PLAY + "!", encoding="utf-8")
        return found

    monkeypatch.setattr(encoded, "read_through", read_and_write)
    with pytest.raises(CorpusError, match="has changed while it was read"):
        encode_text(long)
    assert names(long) == ["mine.txt"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[:-1],
        lambda whole: whole + b"\0",
        lambda whole: whole[:-1] + b"\1",
        lambda whole: whole.replace(b"U8", b"I8"),
        lambda whole: whole.replace(b"characters", b"Characters"),
        lambda whole: whole.replace(b"sha256", b"Sha256"),
        lambda whole: whole.replace(b"FS", b"Fs"),
    ],
    ids=["empty", "cut", "longer", "an id", "the type", "a name", "another name", "a character"],
)
def test_a_damaged_file_is_made_anew(long, damage):
    place = encode_text(long).kept
    whole = place.read_bytes()
    assert damage(whole) != whole
    place.write_bytes(damage(whole))
    assert_is_encoded(encode_text(long), long)
    assert place.read_bytes() == whole


def test_where_nothing_can_be_written_it_goes_to_the_cache_of_the_user(long, tmp_path):
    (long.parent / "mine.txt.tokens").mkdir()  # root may write into any folder
    first = encode_text(long)
    assert first.kept.parent == tmp_path / "cache"
    assert_is_encoded(first, long)
    assert encode_text(long) == first
    assert names(long) == ["mine.txt", "mine.txt.tokens"]


def test_where_that_cannot_be_written_either_both_are_named(long, tmp_path):
    (long.parent / "mine.txt.tokens").mkdir()
    (tmp_path / "cache").touch()
    with pytest.raises(CorpusError, match=r"mine.txt needs 0.0 GB for its ids: .*, and .*cache/"):
        encode_text(long)


def test_what_a_killed_process_left_goes_and_that_of_a_living_one_stays(long):
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    for pid in (killed.pid, os.getppid()):
        (long.parent / f"mine.txt.tokens.{pid}.new").touch()
    assert_is_encoded(encode_text(long), long)
    assert names(long) == ["mine.txt", "mine.txt.tokens", f"mine.txt.tokens.{os.getppid()}.new"]


def test_an_interruption_leaves_nothing(long, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(encoded.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        encode_text(long)
    assert names(long) == ["mine.txt"]


def test_two_at_once_both_have_it(long, monkeypatch):
    original, others = os.replace, []

    def replace(*names):
        if not others:
            others.append(None)
            monkeypatch.setattr(encoded.os, "getpid", os.getppid)
            others.append(encode_text(long))
        original(*names)

    monkeypatch.setattr(encoded.os, "replace", replace)
    text = encode_text(long)
    assert text == others[1]
    assert_is_encoded(text, long)
    assert names(long) == ["mine.txt", "mine.txt.tokens"]


def test_the_ids_of_another_text_are_not_taken_for_its_own(long):
    before = encode_text(long)
    long.write_text(PLAY + "!", encoding="utf-8")
    encode_text(long)
    with pytest.raises(CorpusError, match="is of another text by now"):
        before.tokens()


def test_another_process_is_told_where_they_are_and_another_machine_all_of_them(long):
    long.write_text(PLAY * 1000, encoding="utf-8")
    text = encode_text(long)
    assert len(told := pickle.dumps(text)) < 1000
    assert_is_encoded(pickle.loads(told), long)
    alone = pickle.loads(pickle.dumps(text.in_memory()))
    text.kept.unlink()
    assert_is_encoded(alone, long)
