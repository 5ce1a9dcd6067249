"""Wishes, and the requests that corrections become."""

from __future__ import annotations

import itertools

import pytest

from prompt_mamba_arch.app import understand, write_request
from prompt_mamba_arch.app.wish import LABELS
from prompt_mamba_arch.data.kinds import KINDS
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.text import read_intents


def test_what_was_understood():
    known = understand("take the grain out, but keep the fog")
    assert (known.remove, known.keep, known.asks) == (("noise",), ("haze",), "restoration") and known.sure
    assert "noise" in known.sentence and "haze" in known.sentence
    assert understand("").remove == KINDS
    other = understand("what is the capital of France?")
    assert other.asks == "unrelated" and other.remove == ()
    assert understand("remove \ud800 noise").prompt == "remove ? noise"


def test_requests_are_sentences():
    assert write_request(["rain"]) == "remove the rain"
    assert write_request(["lowlight", "noise", "rain"], ["haze", "holes"]) == (
        "remove the image noise, the rain and the darkness, keep the haze and the scratches"
    )
    assert write_request(KINDS) == ""  # whatever is wrong
    assert tuple(LABELS) == KINDS


@pytest.mark.parametrize(
    "remove, keep, said",
    [([], [], "nothing is ticked"), ([], ["rain"], "nothing is ticked"), (["rain"], ["rain"], "not both"),
     (["rian"], [], "did you mean 'rain'")],
)  # fmt: skip
def test_requests_that_say_nothing(remove, keep, said):
    with pytest.raises(UserError, match=said):
        write_request(remove, keep)


def test_requests_are_understood_as_they_are_meant():
    """By the shipped reader of intents, which knows nothing of them."""
    meant = [((kind,), ()) for kind in KINDS] + [(two, ()) for two in itertools.combinations(KINDS, 2)]
    meant += [((kind,), (other,)) for kind, other in itertools.permutations(KINDS, 2)]
    read = read_intents([write_request(*one) for one in meant])
    right = sum(
        (tuple(k for k in KINDS if intent.remove[k] >= 0.5), tuple(k for k in KINDS if intent.keep[k] >= 0.5)) == one
        for intent, one in zip(read, meant)
    )
    assert right / len(meant) > 0.9
