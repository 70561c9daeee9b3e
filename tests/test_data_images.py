"""Decoding, cropping, converting and saving pictures."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dclip.data.images import (
    MAX_PIXELS,
    check_crop,
    decode,
    save_png,
    to_float,
    to_uint8,
)
from dclip.errors import BadInput


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def colours(height: int = 40, width: int = 30) -> np.ndarray:
    """A smooth picture, so that resizing and JPEG change little: (H, W, 3) uint8."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = x * 255 / (width - 1), y * 255 / (height - 1)
    return np.stack([red, green, 255 - red], axis=-1).round().astype(np.uint8)


def test_rgb_png_comes_back_as_it_is() -> None:
    assert np.array_equal(decode(encoded(Image.fromarray(colours()))).pixels, colours())


def test_decodes_from_path_and_bytes_alike(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(colours()), "JPEG")
    (tmp_path / "a.jpg").write_bytes(data)
    assert np.array_equal(decode(tmp_path / "a.jpg").pixels, decode(data).pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = Image.fromarray(colours())
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(decode(encoded(stored, exif=exif)).pixels, colours())


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    pixels = decode(encoded(Image.fromarray(ramp))).pixels
    assert np.array_equal(pixels[..., 0].reshape(-1), np.arange(256))
    assert (pixels == pixels[..., :1]).all()


def test_sixteen_bit_tiff_in_both_byte_orders() -> None:
    ramp = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
    little = decode(encoded(Image.fromarray(ramp), "TIFF")).pixels
    header = struct.pack(">2sHI", b"MM", 42, 8 + 128)
    tags = [
        (256, 3, 8), (257, 3, 8), (258, 3, 16), (259, 3, 1), (262, 3, 1),
        (273, 4, 8), (277, 3, 1), (278, 3, 8), (279, 4, 128),
    ]  # fmt: skip
    entries = b"".join(
        struct.pack(">HHI", tag, kind, 1)
        + (struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value))
        for tag, kind, value in tags
    )
    big = header + ramp.astype(">u2").tobytes() + struct.pack(">H", len(tags)) + entries + bytes(4)
    assert np.array_equal(decode(big).pixels, little)


def test_float_tiff_of_unit_range_is_scaled() -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    pixels = decode(encoded(Image.fromarray(ramp), "TIFF")).pixels
    assert np.array_equal(pixels[..., 0].reshape(-1), np.arange(256))


def test_float_tiff_with_nan_is_refused() -> None:
    values = np.full((4, 4), np.nan, dtype=np.float32)
    with pytest.raises(BadInput, match="not numbers"):
        decode(encoded(Image.fromarray(values), "TIFF"))


def test_cmyk_jpeg_keeps_its_colours() -> None:
    cmyk = Image.fromarray(colours()).convert("CMYK")
    pixels = decode(encoded(cmyk, "JPEG", quality=95)).pixels
    assert np.abs(pixels.astype(int) - colours()).mean() < 4


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_and_bilevel_become_rgb(mode: str) -> None:
    half = np.zeros((8, 8), dtype=np.uint8)
    half[:, 4:] = 255
    pixels = decode(encoded(Image.fromarray(half).convert(mode))).pixels
    assert np.array_equal(pixels, np.repeat(half[..., None], 3, axis=-1))


def test_palette_becomes_its_colours() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    assert decode(encoded(image)).pixels.tolist() == [[[10, 20, 30], [200, 100, 50]]]


def test_transparency_lies_over_white() -> None:
    rgba = Image.new("RGBA", (3, 1))
    rgba.putdata([(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 128)])
    assert decode(encoded(rgba)).pixels.tolist() == [[[255, 0, 0], [255] * 3, [127] * 3]]
    grey = Image.new("LA", (1, 1), (0, 0))
    assert decode(encoded(grey)).pixels.tolist() == [[[255] * 3]]
    palette = Image.new("P", (1, 1))
    palette.putpalette([9, 9, 9])
    assert decode(encoded(palette, transparency=0)).pixels.tolist() == [[[255] * 3]]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animation_gives_its_first_frame_and_says_so(kind: str) -> None:
    first, second = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    options = {"save_all": True, "append_images": [second]}
    picture = decode(
        encoded(first, kind, **options, **({"lossless": True} if kind == "WEBP" else {}))
    )
    assert (picture.pixels == (255, 0, 0)).all()
    assert picture.notes == ("several frames: first one taken",)
    assert decode(encoded(first, kind)).notes == ()


def test_face_crop_of_celeba_is_148_at_15_35() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (218, 178, 3), dtype=np.uint8)
    pixels = decode(encoded(Image.fromarray(photo)), crop="face").pixels
    assert np.array_equal(pixels, photo[35:183, 15:163])
    assert np.array_equal(decode(encoded(Image.fromarray(photo)), crop="148").pixels, pixels)


def test_center_crop_is_the_square_of_the_short_side() -> None:
    pixels = decode(encoded(Image.fromarray(colours(41, 20))), crop="center").pixels
    assert np.array_equal(pixels, colours(41, 20)[10:30])
    assert np.array_equal(
        decode(encoded(Image.fromarray(colours(20, 41))), crop="999").pixels,
        colours(20, 41)[:, 10:30],
    )


def test_resize_is_antialiased() -> None:
    fine = np.indices((128, 128)).sum(axis=0) % 2 * 255
    photo = np.repeat(fine[..., None], 3, axis=-1).astype(np.uint8)
    pixels = decode(encoded(Image.fromarray(photo)), size=16, crop="center").pixels
    assert pixels.shape == (16, 16, 3)
    assert np.abs(pixels.astype(int) - 127).max() <= 2


def test_large_jpeg_decoded_small_keeps_place_and_orientation() -> None:
    photo = Image.fromarray(colours(1500, 1000))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(photo.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif)
    full = decode(encoded(photo), size=32, crop="500").pixels
    assert np.abs(decode(data, size=32, crop="500").pixels.astype(int) - full).max() <= 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_truncated_is_refused_in_one_line(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    with pytest.raises(BadInput) as caught:
        decode(data[: len(data) // 2], name="half.img")
    assert "half.img" in caught.value.message
    assert "\n" not in caught.value.message


def test_not_an_image_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_text("<html>quota exceeded</html>")
    with pytest.raises(BadInput, match=r"page\.jpg is not an image"):
        decode(tmp_path / "page.jpg")
    with pytest.raises(BadInput, match="no such image"):
        decode(tmp_path / "none.jpg")
    with pytest.raises(BadInput, match="folder"):
        decode(tmp_path)


def gigapixel_png(width: int, height: int) -> bytes:
    """A PNG whose header promises more pixels than it is decent to decode."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("width", [40_000, MAX_PIXELS // 10_000 + 1])
def test_gigapixel_is_refused_before_it_is_decoded(width: int) -> None:
    with pytest.raises(BadInput, match="too large"):
        decode(gigapixel_png(width, 40_000 if width == 40_000 else 10_000))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"]), st.data())
def test_damaged_bytes_decode_or_are_refused_but_never_crash(
    kind: str, data: st.DataObject
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    options = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}
    raw = bytearray(encoded(Image.fromarray(colours(12, 9)), kind, **options))
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        picture = decode(bytes(raw), size=16, crop="center")
    except BadInput:
        return
    assert picture.pixels.shape == (16, 16, 3)


@pytest.mark.parametrize("crop", ["centre", "", "-3", "0", "1.5", "none"])
def test_unknown_crop_is_refused(crop: str) -> None:
    with pytest.raises(BadInput, match="crop"):
        check_crop(crop)


def test_float_and_back_is_exact_and_clips() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    x = to_float(values)
    assert x.dtype == torch.float32
    assert (x.min(), x.max()) == (-1, 1)
    assert torch.equal(to_uint8(x), values)
    assert to_uint8(torch.tensor([-9.0, 9.0])).tolist() == [0, 255]
    assert values[1] == 1, "the input is left as it was"


@pytest.mark.parametrize("form", ["array", "tensor", "image"])
def test_saved_png_comes_back(tmp_path: Path, form: str) -> None:
    pixels = colours()
    given = {
        "array": pixels,
        "tensor": torch.from_numpy(pixels).permute(2, 0, 1),
        "image": Image.fromarray(pixels),
    }[form]
    path = save_png(tmp_path / "deep" / "a.png", given)
    assert np.array_equal(decode(path).pixels, pixels)
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_failed_save_leaves_the_old_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_png(tmp_path / "a.png", colours())
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="space"):
        save_png(path, colours(5, 5))
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert path.read_bytes() == before
