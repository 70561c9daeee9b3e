"""Whole photos from files and to files: nothing turns, nothing is lost without a word."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin, features

from dclip.errors import BadInput
from dclip.photos.files import Photo, read_photo
from dclip.photos.metadata import png_bytes, with_thumbnail
from dclip.photos.saving import beside, write_photo

Array = np.ndarray


def picture(height: int = 40, width: int = 60, channels: int = 3, kind: type = np.uint8) -> Array:
    """Smooth colours, so that JPEG keeps them."""
    y, x = np.mgrid[:height, :width]
    planes = [x / width, y / height, (x + y) / (width + height), 0.3 + 0.5 * x / width]
    flat = np.stack(planes[:channels], axis=-1) * np.iinfo(kind).max
    return np.rint(flat).astype(kind)


def edited(photo: Photo, by: int = 20) -> Array:
    """The photo with a darker spot in its upper left quarter as seen."""
    pixels = photo.pixels.copy()
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    step = by * np.iinfo(pixels.dtype).max // 255
    pixels[:height, :width] = np.maximum(pixels[:height, :width].astype(int) - step, 0)
    return pixels


def seen(path: Path) -> Array:
    """What any viewer shows: Pillow's decoding, turned by EXIF."""
    from PIL import ImageOps

    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(int)


def off(a: Array, b: Array) -> float:
    return float(np.abs(np.asarray(a, float) - b).mean())


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_nothing_turns(tmp_path: Path, suffix: str, orientation: int) -> None:
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo{suffix}"
    Image.fromarray(picture()).save(path, exif=exif)
    photo = read_photo(path)
    assert off(photo.view(), seen(path)) < 0.01
    new, notes = write_photo(photo, edited(photo))
    assert new == tmp_path / f"photo-edited{suffix}" and notes == ()
    assert off(seen(new), edited(photo)) < 3
    if suffix != ".tif":  # Pillow turns TIFF by itself
        with Image.open(new) as image:
            assert image.getexif().get(0x0112, 1) == orientation and image.size == (60, 40)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".bmp", ".ppm", ".gif"])
def test_an_unchanged_photo_is_copied_byte_for_byte(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(picture()).save(path)
    photo = read_photo(path)
    new, _ = write_photo(photo, photo.pixels.copy())
    assert new.suffix == suffix and new.read_bytes() == path.read_bytes()


def test_a_jpeg_keeps_what_it_carries(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Camera of the test"
    exif[0x9003] = "2024:05:01 10:00:00"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = tmp_path / "a.jpg"
    Image.fromarray(picture(64, 96)).save(
        path, exif=exif, icc_profile=profile, quality=71, subsampling=0, progressive=True,
        dpi=(300, 300), comment=b"said so", xmp=b"<x:xmpmeta/>",
    )  # fmt: skip
    photo = read_photo(path)
    new, _ = write_photo(photo, edited(photo))
    with Image.open(path) as old, Image.open(new) as image:
        assert image.info["exif"] == old.info["exif"]
        assert image.info["icc_profile"] == profile
        assert image.info["comment"] == b"said so" and image.info["dpi"] == (300, 300)
        assert image.info["xmp"] == old.info["xmp"] and image.info["progressive"]
        assert image.quantization == old.quantization and image.layer == old.layer
    assert off(seen(new)[40:], seen(path)[40:]) < 0.5


def test_a_lossless_webp_stays_lossless(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    Image.fromarray(picture()).save(path, lossless=True)
    photo = read_photo(path)
    new, _ = write_photo(photo, edited(photo))
    assert np.array_equal(seen(new), edited(photo))


def test_a_tiff_keeps_what_it_carries(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tags = {270: "a wall", 315: "somebody", 306: "2024:05:01 10:00:00"}
    Image.fromarray(picture()).save(path, tiffinfo=tags, compression="tiff_lzw", dpi=(200, 200))
    photo = read_photo(path)
    new, _ = write_photo(photo, edited(photo))
    with Image.open(new) as image:
        assert {tag: image.tag_v2[tag] for tag in tags} == tags
        assert image.info["compression"] == "tiff_lzw" and image.info["dpi"] == (200, 200)
    assert np.array_equal(seen(new), edited(photo))


def test_a_png_keeps_what_it_carries(tmp_path: Path) -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Title", "a wall")
    texts.add_itxt("Ort", "Zürich")
    path = tmp_path / "a.png"
    Image.fromarray(picture()).save(path, pnginfo=texts, dpi=(120, 120))
    photo = read_photo(path)
    new, _ = write_photo(photo, edited(photo))
    with Image.open(new) as image:
        assert image.text == {"Title": "a wall", "Ort": "Zürich"}
        assert round(image.info["dpi"][0]) == 120
    assert np.array_equal(seen(new), edited(photo))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_stay(tmp_path: Path, channels: int) -> None:
    if channels > 1:
        pytest.importorskip("cv2")
    planes = picture(channels=channels, kind=np.uint16)
    (tmp_path / "a.png").write_bytes(png_bytes(planes))
    photo = read_photo(tmp_path / "a.png")
    assert photo.pixels.dtype == np.uint16 and photo.grey == (channels < 3)
    assert (photo.alpha is not None) == (channels in (2, 4))
    pixels = photo.pixels + np.uint16(3)
    new, notes = write_photo(photo, pixels)
    again = read_photo(new)
    assert notes == () and np.array_equal(again.pixels, pixels)
    if photo.alpha is not None:
        assert np.array_equal(again.alpha, photo.alpha)


def test_png_files_of_our_own_are_what_pillow_reads() -> None:
    for channels in (1, 2, 3, 4):
        planes = picture(300, 17, channels)
        with Image.open(io.BytesIO(png_bytes(planes))) as image:
            assert np.array_equal(np.asarray(image).reshape(planes.shape), planes)


def test_grey_palette_and_one_bit(tmp_path: Path) -> None:
    grey = Image.fromarray(picture(channels=1)[..., 0])
    for image, mode in (
        (grey, "L"),
        (grey.convert("1"), "L"),
        (Image.fromarray(picture()).quantize(64), "RGB"),
    ):
        path = tmp_path / f"{image.mode}.png"
        image.save(path)
        photo = read_photo(path)
        new, _ = write_photo(photo, edited(photo))
        with Image.open(new) as out:
            assert out.mode == mode
        assert off(seen(new)[20:], seen(path)[20:]) == 0
        assert photo.notes == (("1 bit a pixel: written with 8",) if image.mode == "1" else ())


def test_transparency_is_kept_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture(channels=4)).save(path)
    photo = read_photo(path)
    for suffix in (".png", ".webp", ".tif"):
        new, _ = write_photo(photo, edited(photo), tmp_path / f"b{suffix}")
        with Image.open(new) as image:
            assert off(np.asarray(image)[..., 3], picture(channels=4)[..., 3]) < 1
    with pytest.raises(BadInput, match="transparency"):
        write_photo(photo, edited(photo), tmp_path / "b.jpg")
    assert not (tmp_path / "b.jpg").exists()
    opaque = picture(channels=4)
    opaque[..., 3] = 255
    Image.fromarray(opaque).save(path)
    photo = read_photo(path)
    assert write_photo(photo, edited(photo), tmp_path / "b.jpg")[0].exists()


def test_what_is_transparent_is_seen_over_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    clear.save(tmp_path / "a.png")
    assert (read_photo(tmp_path / "a.png").view() == 255).all()


def test_a_wide_profile_is_seen_through_and_kept(tmp_path: Path) -> None:
    wide = wide_gamut()
    path = tmp_path / "a.png"
    Image.fromarray(picture()).save(path, icc_profile=wide)
    photo = read_photo(path)
    assert any("profile" in note for note in photo.notes)
    with Image.open(path) as image:
        srgb = ImageCms.profileToProfile(
            image, ImageCms.ImageCmsProfile(io.BytesIO(wide)), ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        )  # fmt: skip
    assert off(photo.view(), np.asarray(srgb)) < 0.5
    assert off(photo.view(), photo.pixels) > 3
    change = np.zeros((40, 60, 3), np.float32)
    assert np.array_equal(photo.colours.changed(photo.pixels, change), photo.pixels)
    change[10:20, 10:20] = 0.1
    pixels = photo.colours.changed(photo.pixels, change)
    moved = photo.colours.seen(pixels) - photo.colours.seen(photo.pixels)
    assert abs(moved[10:20, 10:20].mean() - 0.1) < 0.03 and not moved[25:].any()
    new, _ = write_photo(photo, pixels)
    with Image.open(new) as image:
        assert image.info["icc_profile"] == wide


def wide_gamut() -> bytes:
    """A matrix profile with the primaries of Adobe RGB and a gamma of 2.2, written by hand."""

    def fixed(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(v * 65536)) for v in values)

    xyz = {b"rXYZ": (0.60974, 0.31111, 0.01947), b"gXYZ": (0.20528, 0.62567, 0.06087),
           b"bXYZ": (0.14919, 0.06322, 0.74457), b"wtpt": (0.9642, 1.0, 0.8249)}  # fmt: skip
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) + b"\0\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"Wide\0" + bytes(78) + b"\0"
    tags = {name: b"XYZ \0\0\0\0" + fixed(*value) for name, value in xyz.items()}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve) | {b"desc": text, b"cprt": text}
    table, body, at = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", at + len(body), len(content))
        body += content
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"lcms", 0x02400000, b"mntr", b"RGB ",
                       b"XYZ ")  # fmt: skip
    head += bytes(12) + b"acsp" + bytes(28) + fixed(0.9642, 1.0, 0.8249)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def test_a_damaged_profile_is_kept_and_not_applied(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(picture()).save(path, icc_profile=b"no profile at all")
    photo = read_photo(path)
    assert any("damaged" in note for note in photo.notes)
    new, _ = write_photo(photo, edited(photo))
    with Image.open(new) as image:
        assert image.info["icc_profile"] == b"no profile at all"


def test_cmyk_becomes_rgb_with_a_note(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(picture()).convert("CMYK").save(path, quality=95)
    photo = read_photo(path)
    assert any("CMYK" in note for note in photo.notes)
    assert off(photo.view(), picture()) < 4
    new, _ = write_photo(photo, edited(photo))
    with Image.open(new) as image:
        assert image.mode == "RGB"


def test_the_small_picture_in_exif_shows_the_edit(tmp_path: Path) -> None:
    small = io.BytesIO()
    Image.new("RGB", (32, 24), (200, 30, 30)).save(small, "JPEG", quality=95)
    exif = with_small_picture(small.getvalue() + bytes(400))
    path = tmp_path / "a.jpg"
    Image.new("RGB", (320, 240), (200, 30, 30)).save(path, exif=exif)
    photo = read_photo(path)
    new, _ = write_photo(photo, np.full_like(photo.pixels, (20, 20, 180)))
    with Image.open(new) as image:
        block = image.info["exif"]
    assert len(block) == len(exif) and block[:20] == exif[:20]
    with Image.open(io.BytesIO(block[block.index(b"\xff\xd8") :])) as image:
        middle = image.convert("RGB").getpixel((16, 12))
    assert middle[2] > 120 > middle[0]
    assert with_thumbnail(b"Exif\0\0MM nonsense", Image.new("RGB", (4, 4))) == (
        b"Exif\0\0MM nonsense"
    )


def with_small_picture(jpeg: bytes) -> bytes:
    """An EXIF block of two directories, the second of which holds a small JPEG."""
    first = struct.pack("<HHHII", 1, 0x0112, 3, 1, 1) + struct.pack("<I", 8 + 2 + 12 + 4)
    at = 8 + len(first) + 2 + 24 + 4
    second = struct.pack("<H", 2) + struct.pack("<HHII", 0x0201, 4, 1, at)
    second += struct.pack("<HHII", 0x0202, 4, 1, len(jpeg)) + struct.pack("<I", 0)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + first + second + jpeg


def test_nobodys_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(picture()).save(path)
    original = path.read_bytes()
    photo = read_photo(path)
    link = tmp_path / "link.jpg"
    link.symlink_to(path)
    for place in (path, link, tmp_path / "x" / ".." / "a.jpg"):
        with pytest.raises(BadInput, match="the photo itself"):
            write_photo(photo, edited(photo), place, overwrite=True)
    names = [write_photo(photo, edited(photo))[0].name for _ in range(3)]
    assert names == ["a-edited.jpg", "a-edited-2.jpg", "a-edited-3.jpg"]
    other = tmp_path / "other.jpg"
    other.write_bytes(b"mine")
    with pytest.raises(BadInput, match="is there already"):
        write_photo(photo, edited(photo), other)
    assert other.read_bytes() == b"mine"
    assert write_photo(photo, edited(photo), other, overwrite=True)[0] == other
    assert other.read_bytes() != b"mine"
    with pytest.raises(BadInput, match="folder"):
        write_photo(photo, edited(photo), tmp_path)
    assert path.read_bytes() == original
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_name_beside_is_free_whatever_the_suffix(tmp_path: Path) -> None:
    (tmp_path / "a[1]-edited.png").write_bytes(b"")
    assert beside(tmp_path / "a[1].jpg").name == "a[1]-edited-2.jpg"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture()).save(path)
    photo = read_photo(path)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(BadInput, match="cannot be written"):
            write_photo(photo, edited(photo))
    finally:
        tmp_path.chmod(0o700)


def test_a_place_that_cannot_be_made(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture()).save(path)
    photo = read_photo(path)
    with pytest.raises(BadInput, match="cannot be written"):
        write_photo(photo, edited(photo), path / "b.png")
    with pytest.raises(BadInput, match="cannot write"):
        write_photo(photo, edited(photo), tmp_path / "b.docx")


def test_gifs_become_png_with_a_note(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    Image.fromarray(picture()).quantize(32).save(path)
    photo = read_photo(path)
    new, notes = write_photo(photo, edited(photo))
    assert new.name == "a-edited.png" and notes and np.array_equal(seen(new), edited(photo))


def test_what_is_no_single_photo_is_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(picture()), Image.fromarray(picture()[::-1])]
    for suffix, word in ((".gif", "frames"), (".png", "frames"), (".webp", "frames"),
                         (".tif", "pages")):  # fmt: skip
        path = tmp_path / f"a{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        with pytest.raises(BadInput, match=f"2 {word}"):
            read_photo(path)
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    Image.fromarray(picture(200, 200)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:900])
    for name in ("b.jpg", "cut.jpg", "absent.jpg", ""):
        with pytest.raises(BadInput) as told:
            read_photo(tmp_path / name)
        assert "\n" not in told.value.message


def test_the_smallest_and_the_widest(tmp_path: Path) -> None:
    for height, width in ((1, 1), (3, 20_000)):
        path = tmp_path / f"{width}.png"
        Image.fromarray(picture(height, width)).save(path)
        photo = read_photo(path)
        assert photo.size == (width, height)
        new, _ = write_photo(photo, photo.pixels ^ np.uint8(1))
        assert np.array_equal(seen(new), photo.pixels ^ np.uint8(1))
