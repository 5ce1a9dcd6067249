"""`prompt-mamba profile`: any network by name, file or arguments."""

from __future__ import annotations

import csv
import json

import pytest
import torch

from prompt_mamba_arch import cli
from prompt_mamba_arch.complexity import open_network, profile
from prompt_mamba_arch.complexity.peak import main, peak_memory
from prompt_mamba_arch.complexity.profile import labels_for
from prompt_mamba_arch.complexity.timing import medians
from prompt_mamba_arch.errors import UserError

INLINE = "{type: PromptMamba, dim: 8, enc_blocks: [1], middle_blocks: 1, dec_blocks: [1], mixers: [conv, scan]}"


@pytest.fixture
def option_file(tmp_path):
    path = tmp_path / "edsr.yml"
    path.write_text("network_g: {type: EDSR, num_in_ch: 3, num_out_ch: 3, num_feat: 8, num_block: 1, upscale: 2}\n")
    return path


def test_networks_by_what_is_written(checkpoint, net, option_file, tmp_path):
    told = []
    x = torch.rand(1, 3, 20, 28)
    with torch.no_grad():
        expected = net(x)
        assert torch.equal(open_network(str(checkpoint)).forward(x), expected)
        config = {"type": "PromptMamba", **net.config}
        opt = tmp_path / "with_weights.yml"
        opt.write_text(json.dumps({"network_g": config, "path": {"pretrain_network_g": str(checkpoint)}}))
        assert torch.equal(open_network(str(opt)).forward(x), expected)
        assert open_network("tiny").takes_prompts
        assert not told
        first, second = (open_network(INLINE, tell=told.append).forward(x) for _ in range(2))
        assert torch.equal(first, second) and len(told) == 2 and "learned nothing" in told[0]
    assert open_network(str(option_file), tell=told.append).upscale == 2
    for spec, said in (
        ("{type: PromptMamba, dimm: 8}", "did you mean 'dim'"),
        ("{type: PromptMmaba}", "did you mean 'PromptMamba'"),
        ("{dim: 8}", "must name its type"),
        ("{dim: [8}", "is not YAML"),
        ("nothing", "no network named"),
        ("tinny", "no network named 'tinny' is shipped or registered; did you mean 'tiny'"),
        ("SwinRI", "did you mean 'SwinIR'"),
        ("VGGStyleDiscriminator", "no VGGStyleDiscriminator takes"),
        (str(tmp_path / "none.yml"), "no option file"),
    ):
        with pytest.raises(UserError, match=said):
            open_network(spec, tell=told.append)


def test_networks_of_spandrel_are_called_by_their_architecture():
    specs = ["tiny", INLINE, "{type: SpandrelArch, arch: NAFNet}", "{type: SpandrelArch, arch: SCUNet}"]
    assert labels_for(specs) == ["tiny", "PromptMamba", "NAFNet", "SCUNet"]


def test_the_command(run, option_file, tmp_path):
    usual = ["profile", INLINE, option_file, "--size", 32, "48x40", "--rounds", 1, "--no-memory"]
    out, err = run(*usual, "-o", tmp_path / "p.csv", code=0)
    assert "32 x 32 pixels" in out and "48 x 40 pixels" in out and "| edsr (EDSR) |" in out
    assert sum("learned nothing" in line for line in err) == 2
    with open(tmp_path / "p.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["network"], row["width"], row["height"]) for row in rows] == [
        *(("PromptMamba", "32", "32"), ("edsr", "32", "32"), ("PromptMamba", "48", "40"), ("edsr", "48", "40"))
    ]
    ours, theirs = rows[0], rows[1]
    assert float(ours["scans"]) > 0 == float(theirs["scans"]) and float(ours["seconds"]) > 0 and ours["memory"] == ""
    assert float(ours["macs"]) == float(ours["products"]) + float(ours["scans"])
    run(*usual[:4], 32, "--rounds", 0, "--no-memory", "-o", tmp_path / "p.json", code=0)
    assert json.loads((tmp_path / "p.json").read_text())[0]["seconds"] is None
    for change, said in (
        (["--size", "0"], "must be pixels"),
        (["-o", tmp_path / "p.txt"], "suffix of 'p.txt'"),
        (["-o", tmp_path / "no" / "p.md"], "no such folder"),
        (["--device", "gpu"], "unknown device"),
    ):
        out, err = run(*usual, *change, code=2)
        assert out == "" and said in err[-1]
    with pytest.raises(UserError, match="named twice"):
        profile([INLINE, INLINE])


@pytest.fixture
def run(capfd):
    def run(*arguments, code):
        capfd.readouterr()
        try:
            found = cli.main([str(argument) for argument in arguments])
        except SystemExit as error:
            found = error.code
        out, err = capfd.readouterr()
        assert found == code and "Traceback" not in err, err
        return out, err.splitlines()

    return run


def test_memory_of_a_pass(checkpoint, capsys):
    """In a process of its own: at least the image and the result, 3 numbers a pixel; at most what tiles reckon with."""
    side = 512
    found = peak_memory(str(checkpoint), side, side)
    assert 24 * side**2 < found < 4 * open_network(str(checkpoint)).bytes_per_pixel() * side**2
    assert main(["nothing", "32", "32", "1", "cpu"]) == 2
    assert "no network named 'nothing'" in capsys.readouterr().err


def test_runs_are_interleaved():
    order = []
    found = medians({name: lambda name=name: order.append(name) for name in "abc"}, rounds=2, tick=lambda: None)
    assert order == list("abc") * 3 and set(found) == set("abc") and all(value >= 0 for value in found.values())
