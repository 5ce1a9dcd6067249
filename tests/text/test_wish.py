"""Wishes: their vectors, their sentences, and how intents become wishes."""

from __future__ import annotations

import pytest
import torch

from prompt_mamba_arch.data.kinds import KINDS
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.text import WISHES, Intent, Wish, describe, read_intent, wish_vectors


def intent(remove=(), keep=(), everything=0.0, asks="restoration") -> Intent:
    return Intent(
        prompt="a sentence",
        remove={kind: 0.9 if kind in remove else 0.1 for kind in KINDS},
        keep={kind: 0.9 if kind in keep else 0.1 for kind in KINDS},
        everything=everything,
        asks={name: float(name == asks) for name in ("restoration", "nothing", "unrelated")},
    )


def test_wishes_are_of_the_kinds_that_the_data_has():
    assert WISHES == KINDS


@pytest.mark.parametrize("text_dim", [11, 384])
def test_vectors_tell_the_kinds_apart_without_loss(text_dim):
    each = wish_vectors([Wish(()), *(Wish({kind}) for kind in KINDS)], text_dim)
    waves = torch.cat((each[:1], each[1:] - each[:1]))
    torch.testing.assert_close(waves @ waves.T, torch.eye(len(KINDS) + 1), atol=1e-5, rtol=0)
    some = Wish({"noise", "haze", "holes"})
    told = some.vector(text_dim) @ waves.T
    assert told.round().tolist() == [1.0, *(float(kind in some.remove) for kind in KINDS)]


def test_a_blur_of_no_named_kind_is_half_of_each():
    nothing, noise, noise_and_blur = wish_vectors(
        [Wish(()), Wish({"noise"}), Wish({"noise", "defocus", "motion"})], 384
    )
    blurs = wish_vectors([Wish({"defocus"}), Wish({"motion"})], 384) - nothing
    torch.testing.assert_close(noise_and_blur, noise + 0.5 * blurs.sum(0))


def test_whatever_is_wrong_is_blind_and_nothing_is_not():
    assert not Wish().vector(384).any() and Wish(()).vector(384).any()
    with pytest.raises(UserError, match="text_dim greater than 10"):
        Wish({"noise"}).vector(8)


def test_a_kind_that_is_none_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"no such kind: 'nois'.*noise"):
        Wish({"nois"})
    with pytest.raises(TypeError):
        Wish("noise")


@pytest.mark.parametrize(
    ("read", "wish"),
    [
        (intent({"noise", "rain"}), Wish({"noise", "rain"})),
        (intent(KINDS, everything=0.8), Wish()),
        (intent(set(KINDS) - {"noise"}, {"noise"}, everything=0.8), Wish(set(KINDS) - {"noise"})),
        (intent({"noise"}, asks="nothing"), Wish(())),
        (intent({"noise"}, asks="unrelated"), Wish(())),
    ],
)
def test_of_an_intent(read, wish):
    assert Wish.of(read) == wish


def test_a_doubtful_reading_is_rather_a_restoration():
    doubtful = intent({"noise"})
    doubtful.asks.update(restoration=0.4, unrelated=0.6)
    assert Wish.of(doubtful) == Wish({"noise"}) and describe(doubtful).startswith("remove noise")
    doubtful.asks.update(restoration=0.2, unrelated=0.8)
    assert Wish.of(doubtful) == Wish(()) and "does not ask for restoration" in describe(doubtful)


@pytest.mark.parametrize(
    ("unrelated", "likeliest", "everything", "wish"),
    [
        (0.6, 0.2, 0.1, Wish(())),  # more likely unrelated than not, and no guess of what
        (0.6, 0.35, 0.1, Wish({"haze"})),
        (0.6, 0.2, 0.35, Wish({"haze"})),
        (0.4, 0.2, 0.1, Wish({"haze"})),
        (0.4, 0.2, 0.6, Wish()),
    ],
)
def test_what_is_not_clear_is_a_guess_or_nothing_and_never_said_to_be_clear(unrelated, likeliest, everything, wish):
    unclear = intent(everything=everything)
    unclear.remove["haze"] = likeliest
    unclear.asks.update(restoration=0.35, nothing=0.65 - unrelated, unrelated=unrelated)
    assert Wish.of(unclear) == wish and unclear.clear == (wish == Wish())
    assert ("not clearly of what" in describe(unclear)) == (wish == Wish({"haze"}))


def test_a_restoration_of_nothing_clear_is_of_the_likeliest_kind():
    unclear = intent()
    unclear.remove["haze"] = 0.4
    assert Wish.of(unclear) == Wish({"haze"})


@pytest.mark.parametrize("kinds", [None, (), *({kind} for kind in KINDS), {"noise", "rain"}, {"jpeg", "haze", "holes"}])
def test_sentences_are_read_as_what_they_were_written_from(kinds):
    wish = Wish(kinds)
    assert Wish.of(read_intent(wish.sentence())) == wish
