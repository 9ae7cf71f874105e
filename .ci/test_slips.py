"""Natural mistakes, written by people who had not read the tests, and what is said of each."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from one_session import FOLDERS
from slips import verdicts

from tiny_transformer.setup.grading import grades


@pytest.mark.timeout(300)
@pytest.mark.parametrize("module", FOLDERS)
def test_every_slip_is_caught_and_told_truly_in_a_few_lines(module, monkeypatch):
    monkeypatch.setattr(grades, "SECONDS", 4)  # one of them never ends
    answers = verdicts(module, extra=False)
    assert len(answers) > 10
    words = {f"{v.slip.exercise}: {v.slip.name}": v.word for v in answers}
    wrong = {"accepted", "refused", "misleading"}
    assert not {name: word for name, word in words.items() if word in wrong}
    enough = sum(word in ("true", "right") for word in words.values())
    assert enough >= 0.9 * len(words)
    assert max(len(v.text.splitlines()) for v in answers) <= 25
    assert max(len(line) for v in answers for line in v.text.splitlines()) <= 80
