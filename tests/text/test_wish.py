"""Wishes: their vectors, their sentences, and how intents become wishes."""

from __future__ import annotations

import pytest
import torch

from prompt_mamba_arch.data.kinds import KINDS
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.text import WISHES, Intent, Wish, describe, read_intent, wish_vectors
from prompt_mamba_arch.text.intent_network import ASKS


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


@pytest.mark.parametrize(
    ("asks", "wish", "said"),
    [
        ((0.5, 0.1, 0.4), Wish({"noise"}), "remove noise"),
        ((0.4, 0.35, 0.25), Wish({"noise"}), "remove noise"),
        ((0.4, 0.1, 0.5), Wish(()), "this does not ask for restoration (0.50)"),
        ((0.3, 0.4, 0.3), Wish(()), "leave the photograph as it is (0.40)"),
    ],
)
def test_what_is_likeliest_to_be_asked_is_acted_on_and_said(asks, wish, said):
    doubtful = intent({"noise"})
    doubtful.asks.update(zip(ASKS, asks))
    assert Wish.of(doubtful) == wish and describe(doubtful).startswith(said)


@pytest.mark.parametrize(
    ("likeliest", "everything", "wish"), [(0.2, 0.1, Wish({"haze"})), (0.2, 0.35, Wish({"haze"})), (0.2, 0.6, Wish())]
)
def test_what_is_not_clear_is_a_guess_and_never_said_to_be_clear(likeliest, everything, wish):
    unclear = intent(everything=everything)
    unclear.remove["haze"] = likeliest
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
