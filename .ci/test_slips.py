"""Natural mistakes, written by people who had not read the tests, and what is said of each."""

import pytest
from slips import ROOT, verdicts

MODULES = sorted(path.parent.name for path in ROOT.glob("[0-9]*_*/exercises.py"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("module", MODULES)
def test_every_slip_is_caught_and_told_truly_in_a_few_lines(module):
    answers = list(verdicts(module))
    assert len(answers) > 10
    words = {f"{v.slip.exercise}: {v.slip.name}": v.word for v in answers}
    wrong = {"accepted", "refused", "misleading"}
    assert not {name: word for name, word in words.items() if word in wrong}
    enough = sum(word in ("true", "right") for word in words.values())
    assert enough >= 0.9 * len(words)
    assert max(len(v.text.splitlines()) for v in answers) <= 25
    assert max(len(line) for v in answers for line in v.text.splitlines()) <= 80
