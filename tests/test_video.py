"""Films: every frame is restored, at its time, with the sound as it was."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.restore import Restorer
from prompt_mamba_arch.video import restore_film

av = pytest.importorskip("av")


def _make(path, photo, codec="libx264", size=(96, 64), frames=6):
    """A camera that moves over a photograph, the last frames slower, with a tone of the same length."""
    with av.open(str(path), "w") as film:
        film.metadata["title"] = "A film"
        pictures = film.add_stream(codec, rate=10, options={"crf": "10"})
        pictures.width, pictures.height, pictures.pix_fmt = *size, "yuv420p"
        sound = film.add_stream("aac" if codec == "libx264" else "libopus", rate=48000, layout="mono")
        for i in range(frames):
            part = np.ascontiguousarray(photo[5 * i : 5 * i + size[1], : size[0]])
            frame = av.VideoFrame.from_ndarray(part, format="rgb24")
            frame.pts = i if i < 3 else 2 * i
            film.mux(pictures.encode(frame))
        film.mux(pictures.encode())
        tone = (8000 * np.sin(np.arange(48000 * frames // 10) / 20)).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48000, 0
        resampler = av.AudioResampler(format=sound.format.name, frame_size=sound.codec_context.frame_size or 960)
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            film.mux(sound.encode(piece))
        film.mux(sound.encode())
    return path


def _frames(path):
    with av.open(str(path)) as film:
        return [(float(frame.time), frame.to_ndarray(format="rgb24")) for frame in film.decode(video=0)]


def _sound(path):
    with av.open(str(path)) as film:
        return [bytes(packet) for packet in film.demux(audio=0) if packet.size]


def _psnr(a, b):
    return 10 * np.log10(255**2 / np.square(a.astype(float) - b).mean())


@pytest.fixture
def same():
    return Restorer(nn.Identity(), device="cpu")


@pytest.mark.parametrize("suffix, codec", [(".mp4", "libx264"), (".mkv", "libx264"), (".webm", "libvpx-vp9")])
def test_what_the_network_leaves_alone_stays(tmp_path, photos, same, suffix, codec):
    source = _make(tmp_path / f"in{suffix}", photos["astronaut"], codec)
    target, seen = tmp_path / f"out{suffix}", []
    assert restore_film(same, source, target, progress=lambda *at: seen.append(at)) == []
    before, after = _frames(source), _frames(target)
    assert len(before) == len(after) == 6 == len(seen) and seen[-1][0] == 6
    assert [time for time, _ in after] == pytest.approx([time for time, _ in before], abs=0.002)
    for (_, a), (_, b) in zip(before, after):
        assert _psnr(a, b) > 38 and abs((b.astype(float) - a).mean(axis=(0, 1))).max() < 0.7  # and no colour fades
    assert _sound(source) == _sound(target) and len(_sound(target)) > 10
    with av.open(str(target)) as film:
        assert film.metadata["title"] == "A film"


def test_frames_are_restored(tmp_path, photos):
    class Darker(nn.Module):
        def forward(self, x):
            return x * 0.4

    source = _make(tmp_path / "in.mp4", photos["coffee"])
    restorer = Restorer(Darker(), device="cpu")
    restore_film(restorer, source, tmp_path / "out.mp4", None, 0.5, 64, ensemble=True)
    for (_, a), (_, b) in zip(_frames(source), _frames(tmp_path / "out.mp4")):
        assert _psnr(a * 0.7, b) > 35


def test_larger_frames(tmp_path, photos):
    source = _make(tmp_path / "in.mp4", photos["coffee"], size=(64, 48))
    restore_film(Restorer(nn.Upsample(scale_factor=3), device="cpu"), source, tmp_path / "out.mkv")
    assert _frames(tmp_path / "out.mkv")[0][1].shape == (144, 192, 3)


@pytest.mark.parametrize("turned", [0, 90, 180, 270])
def test_films_lying_on_their_side_come_out_upright(tmp_path, photos, same, turned):
    from prompt_mamba_arch.video import _Film

    source = _make(tmp_path / "in.mkv", photos["coffee"], frames=2)
    with av.open(str(source)) as given, av.open(str(tmp_path / "out.mkv"), "w") as made:
        film = _Film(same, given, made, "libx264")
        film._rotation = lambda frame: turned
        film.restore({"prompt": None}, None)
    before, after = (_frames(path)[0][1] for path in (source, tmp_path / "out.mkv"))
    assert _psnr(np.rot90(before, turned // 90), after) > 38


def test_what_is_no_film(tmp_path, same, photos):
    good = _make(tmp_path / "good.mp4", photos["coffee"])
    (tmp_path / "bad.mp4").write_bytes(good.read_bytes()[:300])
    (tmp_path / "text.mp4").write_text("no film")
    (tmp_path / "empty.mp4").touch()
    with av.open(str(tmp_path / "sound.mp4"), "w") as film:
        sound = film.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 48000, 0
        film.mux(sound.encode(frame))
        film.mux(sound.encode())
    for name in ("bad", "text", "empty", "sound"):
        with pytest.raises(UserError, match=f"{name}.mp4"):
            restore_film(same, tmp_path / f"{name}.mp4", tmp_path / "out.mp4")
    with pytest.raises(UserError, match="suffix of a film"):
        restore_film(same, good, tmp_path / "out.gif")
    with pytest.raises(UserError, match="takes no prompts"):
        restore_film(same, good, tmp_path / "out.mp4", "remove the noise")
    assert not [path.name for path in tmp_path.iterdir() if "out" in path.name]


def test_the_command(tmp_path, photos, checkpoint, capsys):
    from prompt_mamba_arch import cli

    source = _make(tmp_path / "in.mp4", photos["coffee"], frames=2)
    how = ["restore", "-i", str(source), "--model", str(checkpoint), "-o"]
    assert cli.main([*how, str(tmp_path / "out.mkv")]) == 0
    assert len(_frames(tmp_path / "out.mkv")) == 2
    assert (tmp_path / "out.mkv").stat().st_mtime_ns == source.stat().st_mtime_ns
    for arguments, said in (
        ([str(tmp_path / "out.mkv")], "exists already"),
        ([str(tmp_path / "out.png")], "must be one of .mp4"),
        ([str(tmp_path / "new.mp4"), "--compare"], "not for films"),
    ):
        capsys.readouterr()
        assert cli.main([*how, *arguments]) == 2
        assert said in capsys.readouterr().err
