"""What is seen to be wrong with a photograph, and what is made of it."""

from __future__ import annotations

import numpy as np
import pytest

from prompt_mamba_arch.data import render, sample_recipe
from prompt_mamba_arch.data.image_source import to_float
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.restore import Restorer
from prompt_mamba_arch.sight import load_network, see, views, what_is_wrong
from prompt_mamba_arch.text import Wish
from prompt_mamba_arch.text.wish import WISHES


def _damaged(clean, kinds, seed=5):
    recipe = sample_recipe(seed, kinds, len(kinds))
    return np.rint(render(to_float(clean), recipe).clip(0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (64, 64), (65, 1000), (333, 129)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_any_photograph_can_be_looked_at(size, dtype):
    rng = np.random.default_rng(0)
    most = 1 if dtype == np.float32 else np.iinfo(dtype).max
    image = (rng.random((*size, 3)) * most).astype(dtype)
    patches, whole = views(image)
    assert patches.shape == (16, 64, 64, 3) and whole.shape == (64, 64, 3)
    assert patches.dtype == whole.dtype == np.uint8 and patches.max() > 2
    seen = see(image)
    assert tuple(seen) == WISHES and all(0 <= value <= 1 for value in seen.values())


def test_the_depth_of_numbers_and_the_run_change_nothing(photos):
    image = photos["astronaut"]
    seen = see(image)
    assert see(image) == seen
    assert see(image.astype(np.uint16) * 257) == pytest.approx(seen, abs=1e-6)
    assert see(image.astype(np.float32) / 255) == pytest.approx(seen, abs=1e-6)


@pytest.mark.parametrize("kind", ["noise", "lowlight", "haze", "holes"])
def test_what_is_plain_is_seen(photos, kind):
    clean = [np.ascontiguousarray(photo[:192, :192]) for photo in photos.values()]
    before = np.mean([see(image)[kind] for image in clean])
    after = np.mean([see(_damaged(image, [kind], seed))[kind] for seed, image in enumerate(clean)])
    assert after > 0.5 and after > before + 0.3


def test_what_is_likely_shall_go():
    seen = dict.fromkeys(WISHES, 0.1)
    assert what_is_wrong(seen) == Wish()
    assert what_is_wrong({**seen, "rain": 0.5, "noise": 0.9}) == Wish({"rain", "noise"})


def test_who_says_nothing_gets_what_was_seen_to_be_wrong_removed(photos):
    dark = _damaged(np.ascontiguousarray(photos["astronaut"][:128, :128]), ["lowlight"])
    restorer = Restorer.from_pretrained("tiny", "cpu")
    alone = restorer.restore(dark)
    assert restorer.seen == {}
    looked = restorer.restore(dark, look=True)
    assert restorer.seen["lowlight"] > 0.5 and looked.mean() > 1.5 * alone.mean()
    assert np.array_equal(looked, restorer.restore(dark, what_is_wrong(restorer.seen)))
    assert np.array_equal(looked, restorer.restore(dark, "fix whatever is wrong", look=True))
    told = restorer.restore(dark, "take the grain out", look=True)
    assert np.array_equal(told, restorer.restore(dark, Wish({"noise"})))


def test_a_file_of_something_else_is_one_line(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"no weights")
    for name in ("x.safetensors", "missing.safetensors"):
        with pytest.raises(UserError, match="is no network that sees what is wrong"):
            load_network(tmp_path / name)
