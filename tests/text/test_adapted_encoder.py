"""The adapted encoder is the encoder until it is trained, and the same whether its changes are merged or not."""

from __future__ import annotations

import pytest
import torch

from prompt_mamba_arch.text import TextEncoder
from prompt_mamba_arch.text.adapted_encoder import AdaptedEncoder

PROMPTS = ["remove the noise", "take the haze out of this valley, but keep the grain"]


@pytest.fixture(scope="module")
def encoder():
    return TextEncoder()


def changed(encoder: TextEncoder) -> AdaptedEncoder:
    torch.manual_seed(0)
    adapted = AdaptedEncoder(adapted=2, rank=4)
    for up in adapted.up.values():
        torch.nn.init.normal_(up, std=0.02)
    return adapted.attach(encoder.weights())


def test_it_starts_as_the_encoder(encoder):
    ids, mask = encoder.tokens(PROMPTS)
    states = AdaptedEncoder().attach(encoder.weights())(ids, mask)
    assert states.shape == (2, ids.shape[1], encoder.dim)
    mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    expected = encoder.encode(PROMPTS)
    assert torch.allclose(torch.nn.functional.normalize(mean, dim=1), expected, atol=1e-5)


def test_merging_changes_nothing_and_leaves_the_encoder_alone(encoder):
    before = {name: weight.clone() for name, weight in encoder.weights().items()}
    adapted = changed(encoder)
    ids, mask = encoder.tokens(PROMPTS)
    with torch.no_grad():
        apart = adapted(ids, mask)
        merged = adapted.merge()(ids, mask)
    assert torch.allclose(apart, merged, atol=1e-4)
    assert not torch.allclose(apart, AdaptedEncoder().attach(before)(ids, mask), atol=1e-2)
    assert all(torch.equal(weight, before[name]) for name, weight in encoder.weights().items())


def test_only_the_changes_are_trained_and_saved(encoder):
    adapted = changed(encoder)
    adapted(*encoder.tokens(PROMPTS)).square().sum().backward()
    assert set(adapted.state_dict()) == {name for name, _ in adapted.named_parameters()}
    assert sum(p.numel() for p in adapted.parameters()) == 2 * 4 * (4 * 2 * 384 + 2 * (384 + 1536))
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in adapted.parameters())
    assert all(weight.grad is None for weight in encoder.weights().values())


def test_an_encoder_that_does_not_fit_is_named(encoder):
    with pytest.raises(ValueError, match=r"has no encoder\.layer\.6\.attention"):
        AdaptedEncoder(layers=7).attach(encoder.weights())
    with pytest.raises(ValueError, match="has the shape"):
        AdaptedEncoder(inner=768).attach(encoder.weights())
