"""Right pixel values of pictures that are easily read wrongly."""

from __future__ import annotations

import math
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_files import encoded, icc_profile, png, png_chunk, tiff, with_chunk
from PIL import Image, ImageFile, ImageOps

from dclip.data import formats, images, pixels
from dclip.data.images import decode, shape_of
from dclip.errors import BadInput

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def grey(data: bytes) -> np.ndarray:
    read = decode(data).pixels
    assert (read == read[..., :1]).all()
    return read[..., 0]


# --- samples of more than 8 bits


@pytest.mark.parametrize("order", ["<", ">"])
def test_wide_types_that_span_their_range(order: str) -> None:
    for dtype, full in ((np.uint16, 2**16 - 1), (np.uint32, 2**32 - 1), (np.int32, 2**31 - 1)):
        values = np.rint(RAMP / 255 * full).astype(dtype)
        try:
            read = decode(tiff(values, order=order))
        except BadInput:  # big-endian of 32 bits, in some Pillows
            assert order == ">" and dtype is np.uint32
            continue
        assert np.array_equal(read.pixels[..., 0], RAMP), dtype
        assert read.notes == ()


@pytest.mark.parametrize("dtype", [np.int32, np.uint32])
@pytest.mark.parametrize("full", [255, 65535])
def test_32_bit_integers_of_a_smaller_range_are_guessed_and_say_so(dtype: type, full: int) -> None:
    read = decode(tiff((RAMP.astype(np.int64) * (full // 255)).astype(dtype)))
    assert np.array_equal(read.pixels[..., 0], RAMP)
    (note,) = read.notes
    assert f"0 to {full}" in note and "guess" in note


def test_a_full_scale_that_the_tags_name_is_taken() -> None:
    values = (RAMP.astype(np.uint16) * 2).astype(np.uint16)  # up to 510 of 1023
    read = decode(tiff(values, tags={341: 1023})).pixels[..., 0]
    assert np.array_equal(read, np.rint(values / 1023 * 255))
    # The largest value of this picture is a statistic: it says nothing of the scale.
    as_stored = decode(tiff(values * 64, tags={341: 510 * 64})).pixels[..., 0]
    assert np.array_equal(as_stored, np.rint(values * 64 / 65535 * 255))


def test_12_bits_in_16_are_as_dark_as_stored_and_noted() -> None:
    values = RAMP.astype(np.uint16) * 16
    read = decode(tiff(values))
    assert np.array_equal(read.pixels[..., 0], np.rint(values / 65535 * 255))
    assert "4080 of 65535" in read.notes[0]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_white_is_zero_is_inverted(dtype: type) -> None:
    full = 1.0 if dtype is np.float32 else np.iinfo(dtype).max
    values = (
        (RAMP / 255 * full).astype(dtype)
        if dtype is np.float32
        else (np.rint(RAMP / 255 * full).astype(dtype))
    )
    assert np.array_equal(grey(tiff(values, white_is_zero=True)), 255 - RAMP)
    assert np.array_equal(grey(tiff(values)), RAMP)


@pytest.mark.parametrize("full", [1.0, 255.0, 65535.0])
def test_float_ranges(full: float) -> None:
    read = decode(tiff((RAMP / 255 * full).astype(np.float32)))
    assert np.array_equal(read.pixels[..., 0], RAMP)
    assert bool(read.notes) == (full != 1.0)


def test_a_float_highlight_is_clipped_and_does_not_darken_the_rest() -> None:
    for highlight in (1.02, 7.0, 900.0):
        values = (RAMP / 255).astype(np.float32)
        values[0, :8] = highlight
        read = decode(tiff(values))
        assert np.array_equal(read.pixels[1:, :, 0], RAMP[1:])
        assert (read.pixels[0, :8] == 255).all()
        assert "clipped" in read.notes[0]


def test_a_small_overshoot_of_many_floats_is_clipped() -> None:
    values = (RAMP / 255 * 1.2).astype(np.float32)
    read = decode(tiff(values))
    assert np.array_equal(read.pixels[..., 0], np.rint(np.minimum(values.astype(float), 1) * 255))
    assert "clipped to 0 to 1" in read.notes[0]


def test_png_of_16_bits_grey_and_with_alpha() -> None:
    rows = b"".join(b"\0" + (row.astype(">u2") * 257).tobytes() for row in RAMP)
    assert np.array_equal(grey(png(16, 16, 16, 0, rows)), RAMP)
    alpha = np.stack([RAMP, np.full_like(RAMP, 128)], axis=-1).astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in alpha)
    expected = (RAMP * (128 / 255) + 255 * (127 / 255)).round()
    assert np.abs(grey(png(16, 16, 16, 4, rows)) - expected).max() <= 1


def test_a_transparent_grey_of_16_bits_is_white() -> None:
    rows = b"".join(b"\0" + (row.astype(">u2") * 257).tobytes() for row in RAMP)
    data = with_chunk(png(16, 16, 16, 0, rows), png_chunk(b"tRNS", struct.pack(">H", 7 * 257)))
    expected = RAMP.copy()
    expected[expected == 7] = 255
    assert np.array_equal(grey(data), expected)


# --- colours


def _srgb(linear: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1, of linear values 0..1 to 0..255."""
    linear = np.clip(linear, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


# XYZ of the primaries under D50: ROMM (ISO 22028-2) and Adobe RGB (1998), and what takes XYZ under
# D50 to linear sRGB (Bradford).
ROMM = np.array([[0.79767, 0.13519, 0.03135], [0.28804, 0.71188, 0.00009], [0.0, 0.0, 0.82519]])
ADOBE = np.array(
    [[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]]
)
TO_SRGB = np.array(
    [[3.13386, -1.61687, -0.49061], [-0.97877, 1.91614, 0.03345], [0.07195, -0.22899, 1.40524]]
)


@pytest.mark.parametrize(("primaries", "gamma"), [(ROMM, 1.8), (ADOBE, 2.19921875)])
def test_a_colour_profile_is_applied(primaries: np.ndarray, gamma: float) -> None:
    random = np.random.default_rng(0)
    photo = random.integers(60, 200, (24, 24, 3), dtype=np.uint8)
    linear = (photo / 255.0) ** (round(gamma * 256) / 256)
    expected = _srgb(linear @ primaries.T @ TO_SRGB.T)
    inside = ((expected > 2) & (expected < 253)).all(axis=-1)
    assert inside.sum() > 100
    icc = icc_profile(b"RGB ", primaries, gamma)
    read = decode(encoded(Image.fromarray(photo), icc_profile=icc))
    assert np.abs(read.pixels[inside] - expected[inside]).max() <= 2.5
    assert np.abs(photo[inside] - expected[inside]).mean() > 5  # without it they are off
    assert read.notes == ("colours converted from made here to sRGB",)
    # Behind transparency too, and before it is laid over white.
    clear = Image.fromarray(np.dstack([photo, np.full((24, 24), 128, np.uint8)]))
    over = decode(encoded(clear, icc_profile=icc)).pixels
    mixed = expected * (128 / 255) + 127
    assert np.abs(over[inside] - mixed[inside]).max() <= 2.5


def test_a_grey_profile_is_applied() -> None:
    icc = icc_profile(b"GRAY", None, 1.5)
    read = grey(encoded(Image.fromarray(RAMP), icc_profile=icc))
    assert np.abs(read - _srgb((RAMP / 255) ** 1.5))[RAMP > 8].max() <= 1.5


def test_srgb_and_unfit_profiles_change_nothing() -> None:
    from PIL import ImageCms

    photo = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(photo)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for icc, said in (
        (srgb, None),
        (icc_profile(b"GRAY", None, 1.0), "for grey"),
        (b"no profile", "damaged"),
        (icc_profile(b"RGB ", ROMM, 1.8)[:200], "damaged"),
    ):
        read = decode(encoded(image, icc_profile=icc))
        assert np.array_equal(read.pixels, photo)
        assert [said in note for note in read.notes] == ([True] if said else [])


def test_lab_and_cmyk() -> None:
    lab = Image.merge("LAB", [Image.new("L", (4, 4), v) for v in (round(255 * 0.5), 128, 128)])
    assert np.abs(decode(encoded(lab, "TIFF")).pixels.astype(int) - 119).max() <= 2  # L* = 50
    cmyk = Image.new("CMYK", (4, 4), (255, 0, 0, 0))
    assert decode(encoded(cmyk, "TIFF")).pixels[0, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize("mode", ["PA", "LA", "RGBA"])
def test_half_transparent_lies_over_white(mode: str) -> None:
    image = Image.new("RGBA", (4, 4), (40, 40, 40, 102))
    data = encoded(image.convert(mode)) if mode != "PA" else None
    if data is None:
        palette = Image.new("P", (4, 4), 1)
        palette.putpalette([0, 0, 0, 40, 40, 40])
        data = encoded(palette, transparency=bytes([255, 102]))
    expected = 40 * 0.4 + 255 * 0.6
    assert np.abs(grey(data) - expected).max() <= 1


# --- metadata that is no reason to refuse


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"tEXt", b"Comment\0" + b"x" * 50, sound=False),
        png_chunk(b"zTXt", b"Comment\0\0broken"),
        png_chunk(b"iTXt", b"Comment"),
        png_chunk(b"gAMA", struct.pack(">I", 45455), sound=False),
        png_chunk(b"iCCP", b"made here\0\0nothing", sound=False),
    ],
)
def test_damaged_metadata_of_a_png_is_left_out(chunk: bytes) -> None:
    read = decode(with_chunk(encoded(Image.fromarray(RAMP)), chunk), name="a.png")
    assert np.array_equal(read.pixels[..., 0], RAMP)
    assert not read.notes or "metadata" in read.notes[0]


def test_very_long_text_of_a_png_is_left_out() -> None:
    import zlib

    text = png_chunk(b"zTXt", b"prompt\0\0" + zlib.compress(b"a" * (3 * 2**20)))
    read = decode(with_chunk(encoded(Image.fromarray(RAMP)), text))
    assert np.array_equal(read.pixels[..., 0], RAMP)
    assert "left out" in read.notes[0]


def test_a_profile_survives_damaged_text_beside_it() -> None:
    icc = icc_profile(b"RGB ", ROMM, 1.8)
    photo = Image.new("RGB", (4, 4), (90, 120, 150))
    sound = encoded(photo, icc_profile=icc)
    broken = with_chunk(sound, png_chunk(b"tEXt", b"a\0b", sound=False))
    assert np.array_equal(decode(broken).pixels, decode(sound).pixels)


def test_damaged_pixels_of_a_png_are_still_refused() -> None:
    data = bytearray(encoded(Image.fromarray(RAMP)))
    data[-20] ^= 0xFF
    with pytest.raises(BadInput, match="damaged"):
        decode(bytes(data))


# --- large pictures, part by part


@pytest.mark.parametrize("crop", ["center", "face", "100"])
@pytest.mark.parametrize("orientation", [1, 6, 7])
def test_part_by_part_is_the_same_picture(
    monkeypatch: pytest.MonkeyPatch, crop: str, orientation: int
) -> None:
    y, x = np.mgrid[0:403, 0:307]
    wave = 128 + 100 * np.sin(x / 40) * np.cos(y / 50)
    photo = np.stack([x * 255 / 306, y * 255 / 402, wave], axis=-1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(photo.round().astype(np.uint8)), exif=exif)
    whole = decode(data, size=32, crop=crop).pixels.astype(int)
    full = decode(data, crop=crop).pixels
    upright = ImageOps.exif_transpose(Image.open(images.io.BytesIO(data)))
    reference = decode(encoded(upright), size=32, crop=crop).pixels
    assert np.abs(whole - reference).max() <= 1
    for side in (16, 50):
        monkeypatch.setattr(pixels, "TILE", side)
        assert np.abs(decode(data, size=32, crop=crop).pixels - whole).max() <= 2
        assert np.array_equal(decode(data, crop=crop).pixels, full)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 9), st.integers(1, 40))
def test_tiles_cover_everything_once(width: int, height: int, step: int, most: int) -> None:
    seen = np.zeros((height, width), int)
    for left, top, right, bottom in pixels.tiles(width, height, step, most):
        assert left % step == 0 and top % step == 0
        assert max(right - left, bottom - top) <= max(step, most)
        seen[top:bottom, left:right] += 1
    assert (seen == 1).all()


def test_no_more_than_a_part_is_converted_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What took gigabytes: samples as 64-bit floats, and copies of all of a large RGBA picture."""
    largest = []
    convert = pixels.Converter.__call__

    def watched(self: pixels.Converter, part: Image.Image) -> Image.Image:
        largest.append(part.width * part.height)
        return convert(self, part)

    monkeypatch.setattr(pixels.Converter, "__call__", watched)
    for colour, bits, size in ((0, 16, 2), (6, 8, 4)):
        rows = (b"\0" + bytes(range(10, 10 + size)) * 5000) * 3000
        read = decode(png(5000, 3000, bits, colour, rows), size=16, crop="center")
        assert read.pixels.shape == (16, 16, 3)
    assert sum(largest) >= 2 * 3000 * 3000
    assert max(largest) <= pixels.TILE**2


def test_large_pictures_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    inside, most = [0], [0]
    monkeypatch.setattr(images, "_LARGE", 10)
    load = ImageFile.ImageFile.load

    def counted(self: ImageFile.ImageFile) -> object:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        threading.Event().wait(0.01)
        loaded = load(self)
        inside[0] -= 1
        return loaded

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", counted)
    data = encoded(Image.fromarray(RAMP))
    threads = [threading.Thread(target=decode, args=(data,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_a_very_large_jpeg_is_decoded_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000)  # Pillow refuses twice as many
    monkeypatch.setattr(images, "MAX_PIXELS", 60_000)
    photo = Image.new("RGB", (600, 500), (200, 60, 20))
    read = decode(encoded(photo, "JPEG"), size=32, crop="center").pixels
    assert np.abs(read.astype(int) - (200, 60, 20)).max() <= 3
    for refused, size in (
        (encoded(photo, "JPEG"), None),  # all of it is asked for
        (encoded(photo, "JPEG", progressive=True), 32),  # its decoder holds all of it
        (encoded(photo, "PNG"), 32),
    ):
        with pytest.raises(BadInput, match="too large") as caught:
            decode(refused, size=size)
        assert "scale it below" in caught.value.fix
    monkeypatch.setattr(images, "MAX_JPEG_PIXELS", 200_000)
    with pytest.raises(BadInput, match="600x500"):
        decode(encoded(photo, "JPEG"), size=32)


# --- what is not read here


HEIC = struct.pack(">I4s4sI", 24, b"ftyp", b"heic", 0) + b"mif1heic" + bytes(100)
AVIF = struct.pack(">I4s4sI", 24, b"ftyp", b"avif", 0) + b"mif1avif" + bytes(100)


@pytest.fixture
def without_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tuple(name for name in formats.pillow_formats() if name not in ("AVIF", "HEIF"))
    monkeypatch.setattr(formats, "pillow_formats", lambda: plain)
    monkeypatch.setattr(images, "pillow_formats", lambda: plain)


@pytest.mark.parametrize(
    ("data", "kind", "fix"),
    [
        (HEIC, "HEIC", "pip install 'dclip[heic]'"),
        (AVIF, "AVIF", "pip install -U 'pillow>=11.3'"),
        (b"\xff\x0a" + bytes(50), "JPEG XL", "save it as PNG or JPEG"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(50), "JPEG 2000", "save it as PNG or JPEG"),
        (b"\0\x05\x16\x07" + bytes(50), "macOS ._", "remove it"),
        (b"<!DOCTYPE html><html>", "web page", "download"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS", "git lfs pull"),
        (b"", "empty", "again"),
    ],
)
@pytest.mark.usefixtures("without_plugins")
def test_what_cannot_be_read_is_named_with_the_fix(data: bytes, kind: str, fix: str) -> None:
    with pytest.raises(BadInput, match=kind) as caught:
        decode(data, name="IMG_1.JPG")
    assert "IMG_1.JPG" in caught.value.message
    assert fix in caught.value.fix


@pytest.mark.skipif("AVIF" not in formats.pillow_formats(), reason="this Pillow has no AVIF")
def test_avif_is_read() -> None:
    read = decode(encoded(Image.new("RGB", (16, 16), (200, 60, 20)), "AVIF", quality=95)).pixels
    assert np.abs(read.astype(int) - (200, 60, 20)).max() <= 4


def test_heic_is_read_where_pillow_heif_is() -> None:
    pytest.importorskip("pillow_heif")
    assert "HEIF" in formats.pillow_formats()
    read = decode(encoded(Image.new("RGB", (64, 64), (200, 60, 20)), "HEIF", quality=95)).pixels
    assert np.abs(read.astype(int) - (200, 60, 20)).max() <= 4


def test_shape_as_stored(tmp_path: Path) -> None:
    assert shape_of(encoded(Image.new("RGB", (178, 218)), "JPEG")) == (178, 218)
    assert shape_of(HEIC) == (0, 0)


def test_reference_of_the_srgb_curve() -> None:
    assert math.isclose(_srgb(np.array(0.5)).item(), 187.5, abs_tol=0.1)
