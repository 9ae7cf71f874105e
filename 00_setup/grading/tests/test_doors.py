"""A door that is unused is told from one that is used wrongly."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tiny_transformer.setup.grading.doors import calls, heeds, takes
from tiny_transformer.setup.grading.recording import Recorder


def without(x):
    return x


def ignored(x, change=None):
    return x


def swallowed(x, **options):
    return x


def to_come(x, change=None):
    if change is not None:
        raise NotImplementedError
    return x


def used(x, change=None):
    return x if change is None else change(x)


def wrongly(x, change=None):
    return x if change is None else change(x) + 1


def added(x, change=0):
    return x + change


@pytest.mark.parametrize("function", [without, ignored, swallowed, to_come])
def test_a_door_that_nothing_depends_on_is_unused(function):
    assert not calls(function, "change", torch.neg, torch.ones(2))
    assert not heeds(function, "change", 3, torch.ones(2))


@pytest.mark.parametrize("function", [used, wrongly])
def test_a_door_is_used_also_where_it_is_used_wrongly(function):
    assert calls(function, "change", torch.neg, torch.ones(2))
    assert heeds(added, "change", 3, torch.ones(2))


def test_what_has_not_begun_is_not_a_door_left_alone():
    def stub(x, change=0):
        raise NotImplementedError

    with pytest.raises(NotImplementedError):
        heeds(stub, "change", 3, torch.ones(2))


def test_a_mistake_behind_a_door_is_left_to_the_tests_of_the_door():
    assert calls(lambda x, change=None: x + None, "change", torch.neg, torch.ones(2))
    assert heeds(lambda x, change=0: x[change], "change", 3, torch.ones(2))


def test_what_tries_a_door_is_no_call_of_the_test():
    recorder = Recorder(SimpleNamespace(used=used), "used", [])
    calls(recorder.impl.used, "change", torch.neg, torch.ones(2))
    heeds(recorder.impl.used, "change", torch.neg, torch.ones(2))
    assert not recorder.calls


def test_of_a_module_its_forward_is_asked():
    class Part(nn.Module):
        def forward(self, x, change=None):
            return x

    assert takes(Part(), "change") and not takes(Part(), "start")
