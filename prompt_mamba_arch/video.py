"""Films: frame after frame through the network, what is heard kept as it is. Needs PyAV (the extra `video`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from prompt_mamba_arch.errors import UserError, one_line, replace_on_success
from prompt_mamba_arch.restore import Restorer

__all__ = ["SUFFIXES", "restore_film"]

# suffix -> how pictures are encoded
SUFFIXES = {".mp4": "libx264", ".m4v": "libx264", ".mov": "libx264", ".mkv": "libx264", ".webm": "libvpx-vp9"}
# nearly nothing is lost (18 is called visually lossless); the rest is speed
_OPTIONS = {"libx264": {"crf": "16", "preset": "medium"}, "libvpx-vp9": {"crf": "20", "b": "0", "cpu-used": "4"}}
# where a file does not say its colours: those of television in high definition from 720 lines on, as players take it
_HD, _BT709, _BT601 = 720, 1, 5
# bicubic, with FFmpeg's flags accurate_rnd, full_chroma_int and full_chroma_inp: without them every pass is darker by 1
_EXACT = 4 | 0x40000 | 0x2000 | 0x4000


def restore_film(
    restorer: Restorer,
    source: str | os.PathLike,
    target: str | os.PathLike,
    prompt: str | Sequence[str] | None = None,
    strength: float = 1.0,
    tile: str | int | None = "auto",
    progress: Callable[[int, int], None] | None = None,
    *,
    ensemble: bool = False,
) -> list[str]:
    """Restores every frame by itself. Times of the frames, sound and title are the source's; it lies upright.

    Args:
        progress: called with (frames done, frames in all, as far as the file knows).
        others: as `Restorer.restore`.

    Returns:
        What was lost on the way, in plain words.

    Raises:
        UserError: no film, a damaged one, one that cannot be written as the suffix says, or PyAV is missing.
    """
    try:
        import av
    except ImportError:
        raise UserError("films need PyAV; install it with: pip install av") from None
    source, target = Path(source), Path(target)
    if target.suffix.lower() not in SUFFIXES:
        raise UserError(f"cannot write {target.name!r}: the suffix of a film must be one of {', '.join(SUFFIXES)}")
    try:
        with av.open(str(source)) as given:
            if not given.streams.video:
                raise UserError(f"{str(source)!r} holds no moving pictures")
            with replace_on_success(target) as temporary, av.open(str(temporary), "w") as made:
                wishes = {"prompt": prompt, "strength": strength, "tile": tile, "ensemble": ensemble}
                return _Film(restorer, given, made, SUFFIXES[target.suffix.lower()]).restore(wishes, progress)
    except av.error.FFmpegError as error:
        if isinstance(error, OSError) and not isinstance(error, av.error.InvalidDataError):
            raise
        raise UserError(f"{str(source)!r} cannot be read as a film: {one_line(error)[:160]}") from None


class _Film:
    def __init__(self, restorer: Restorer, given, made, codec: str):
        self._restorer, self._given, self._made, self._codec = restorer, given, made, codec
        self._pictures = given.streams.video[0]
        self._pictures.thread_type = "AUTO"
        self._notes = []
        if (self._pictures.codec_context.format.components[0].bits or 8) > 8:
            self._notes.append("its colours are reduced to 8 bits")
        self._stream = None  # begins with the first frame, which knows its size
        self._sound = self._copied_streams()

    def _copied_streams(self) -> dict:
        """Sound as it is, where the new file can hold it."""
        copied, left_out = {}, 0
        for stream in self._given.streams:
            if stream.type == "audio":
                try:
                    copied[stream] = self._made.add_stream_from_template(stream)
                    continue
                except ValueError:  # the format knows no such sound
                    pass
            left_out += stream is not self._pictures
        if left_out:
            self._notes.append(f"{left_out} of its streams (subtitles, other pictures or sound) cannot be kept")
        return copied

    def restore(self, wishes: dict, progress: Callable[[int, int], None] | None) -> list[str]:
        self._made.metadata.update(self._given.metadata)
        done, total = 0, self._pictures.frames
        waiting = []  # sound before the first frame
        for packet in self._given.demux([self._pictures, *self._sound]):
            if packet.stream is not self._pictures:
                if packet.dts is not None:
                    packet.stream = self._sound[packet.stream]
                    waiting.append(packet)
            else:
                for frame in packet.decode():
                    self._encode(frame, wishes)
                    done += 1
                    if progress is not None:
                        progress(done, max(total, done))
            if self._stream is not None:
                for sound in waiting:
                    self._made.mux(sound)
                waiting.clear()
        if self._stream is None:
            raise UserError("the film holds no frame that can be read")
        self._made.mux(self._stream.encode())
        return self._notes

    def _encode(self, frame, wishes: dict) -> None:
        import av

        space, wide = self._colours(frame)
        pixels = frame.reformat(
            format="rgb24", src_colorspace=space, dst_colorspace=space, src_color_range=wide, interpolation=_EXACT
        ).to_ndarray()
        pixels = np.ascontiguousarray(np.rot90(pixels, round(self._rotation(frame) / 90)))
        restored = self._restorer.restore(pixels, **wishes)
        if self._stream is None:
            self._begin(restored.shape[1], restored.shape[0], space, wide)
        result = av.VideoFrame.from_ndarray(restored, format="rgb24").reformat(
            format=self._stream.pix_fmt,
            src_colorspace=space,
            dst_colorspace=space,
            dst_color_range=wide,
            interpolation=_EXACT,
        )
        result.colorspace, result.color_range = space, wide
        result.pts, result.time_base = frame.pts, frame.time_base
        self._made.mux(self._stream.encode(result))

    def _begin(self, width: int, height: int, space: int, wide: int) -> None:
        rate = self._pictures.average_rate or self._pictures.guessed_rate or 25
        self._stream = stream = self._made.add_stream(self._codec, rate=rate, options=dict(_OPTIONS[self._codec]))
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv420p" if width % 2 == height % 2 == 0 else "yuv444p"
        stream.time_base = stream.codec_context.time_base = self._pictures.time_base
        stream.codec_context.colorspace, stream.codec_context.color_range = space, wide

    @staticmethod
    def _rotation(frame) -> int:
        """Degrees, against the clock, by which it is shown turned. Older versions of PyAV do not tell."""
        return getattr(frame, "rotation", 0)

    @staticmethod
    def _colours(frame) -> tuple[int, int]:
        """Colour matrix and range, as FFmpeg numbers them (ITU-T H.273)."""
        space = int(frame.colorspace)
        if space not in (_BT709, _BT601, 6):  # 2: unknown
            space = _BT709 if frame.height >= _HD else _BT601
        return space, int(frame.color_range) or 1  # 0: unknown, which is the narrow one
