"""What the tests of the command line share."""

import os
import sys

import pytest

from tiny_transformer.capstone import cli, report


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs `tiny-transformer ARGS`; gives exit status, standard output and standard error."""

    def run_command(*args) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tiny-transformer", *map(str, args)])
        with pytest.raises(SystemExit) as exit:
            cli.main()
        out, err = capsys.readouterr()
        if isinstance(exit.value.code, str):  # Python prints it and exits with 1
            return 1, out, err + exit.value.code
        return exit.value.code, out, err

    return run_command


@pytest.fixture(autouse=True)
def short_reports(monkeypatch, request):
    """To speak at length and to draw take longer than the training of these small models.

    A run that several tests share is made before this, and so has a whole report.
    """
    monkeypatch.setattr(report, "SPOKEN", 20)
    monkeypatch.setattr(report, "draw_losses", lambda _, path: path.touch())
    if request.node.get_closest_marker("exercise"):  # what a learner prints shall be found
        monkeypatch.setattr(report, "SPOKEN", 5)
        monkeypatch.setattr(report, "print", lambda *_, **__: None, raising=False)
        monkeypatch.setattr(report.tqdm, "write", lambda *_, **__: None)
        monkeypatch.setattr(os, "fsync", lambda _: None)  # slow, and against power cuts only
