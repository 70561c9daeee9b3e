"""Face recognition networks: their layout, their crop for each frame, and people told apart."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from dclip.errors import BadInput
from dclip.models.face_networks import (
    ARCFACE_CROP,
    MOBILE_POINTS,
    ArcFace,
    FaceFeatures,
    MobileFaceNet,
    read_face_network,
)
from dclip.photos.frames import Frame

CELEBA = Path(
    os.environ.get("DCLIP_CELEBA", Path(__file__).resolve().parents[2] / "shared" / "celeba")
)
NETWORK = Path(
    os.environ.get("DCLIP_MOBILEFACENET", CELEBA.parent / "models" / "mobilefacenet" / "068.ckpt")
)


def seeded(network: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return network().eval()


@pytest.fixture(scope="module")
def mobile() -> nn.Module:
    return seeded(MobileFaceNet)


def blob(points: np.ndarray, side: int) -> torch.Tensor:
    """A square with a soft dot of its own colour at each of the five points (unit square)."""
    y, x = np.mgrid[:side, :side] + 0.5
    picture = np.zeros((3, side, side), np.float32)
    for number, (px, py) in enumerate(points * side):
        dot = np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * (side / 40) ** 2))
        picture += dot * np.array([number & 1, number >> 1 & 1, 1])[:, None, None]
    return torch.from_numpy(picture.clip(0, 1).astype(np.float32))


class Seen(nn.Module):
    """In place of a network: what it is given."""

    def __init__(self, like: nn.Module) -> None:
        super().__init__()
        self.shape, self.points = like.shape, like.points  # type: ignore[assignment]

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        self.x = x
        return x.flatten(1)


@pytest.mark.parametrize(
    "frame", [Frame("celeba"), Frame("celeba", "center"), Frame("ffhq"), Frame("drawn")]
)
@pytest.mark.parametrize("side", [64, 256])
def test_the_network_sees_the_five_points_where_it_knows_them(
    mobile: nn.Module, frame: Frame, side: int
) -> None:
    seen = Seen(mobile)
    FaceFeatures(seen, frame)(blob(frame.points(), side)[None])  # type: ignore[arg-type]
    shown = seen.x[0].amax(0)
    assert seen.x.shape == (1, 3, 112, 96)
    for x, y in MOBILE_POINTS:
        near = shown[round(y) - 7 : round(y) + 7, round(x) - 7 : round(x) + 7]
        at = (near == near.max()).nonzero()[0] + torch.tensor([round(y) - 7, round(x) - 7]) + 0.5
        # The drawn mean face is a little wider than people's, so that it fits less well.
        assert (at - torch.tensor([y, x])).abs().max() < (9 if frame.name == "drawn" else 5)
        assert near.max() > 0.6


def test_points_that_are_known_count_more_than_the_frame(mobile: nn.Module) -> None:
    seen = Seen(mobile)
    features = FaceFeatures(seen, Frame("celeba"))  # type: ignore[arg-type]
    mean = Frame("celeba").points()
    angle = 0.4
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    moved = (mean - 0.5) @ turn * 0.8 + (0.55, 0.47)
    features(blob(mean, 200)[None], mean[None])
    straight = seen.x.clone()
    features(blob(moved, 200)[None], moved[None])
    alike = F.cosine_similarity(straight.flatten(), seen.x.flatten(), dim=0)
    features(blob(moved, 200)[None])
    unlike = F.cosine_similarity(straight.flatten(), seen.x.flatten(), dim=0)
    assert alike > 0.9 > 0.7 > unlike


def test_arcface_sees_what_diffusionclip_shows_it() -> None:
    top, bottom, left, right = ARCFACE_CROP
    network = ArcFace.__new__(ArcFace)
    nn.Module.__init__(network)
    seen: list[torch.Tensor] = []
    network.embed = lambda x: (seen.append(x), x.flatten(1))[1]  # type: ignore[method-assign]
    x = torch.rand(2, 3, 256, 256) * 2 - 1
    FaceFeatures(network, Frame("ffhq"))(x)
    pooled = nn.AdaptiveAvgPool2d((112, 112))(x[:, :, top:bottom, left:right])
    assert torch.equal(seen[0], pooled)
    # Another frame's square shows the same part of the face.
    smooth = F.interpolate(torch.rand(1, 3, 9, 9), size=(256, 256), mode="bicubic")
    FaceFeatures(network, Frame("ffhq"))(smooth)
    by_points = FaceFeatures(network, Frame("ffhq"))
    by_points(smooth, Frame("ffhq").points()[None])
    assert (seen[1] - seen[2]).abs().mean() < 0.01


def test_layouts_are_the_published_ones() -> None:
    network = seeded(ArcFace)
    mobile, arc = MobileFaceNet().state_dict(), network.state_dict()
    assert len(mobile) == 333
    assert mobile["blocks.5.conv.3.weight"].shape == (256, 1, 3, 3)
    assert mobile["linear7.conv.weight"].shape == (512, 1, 7, 6)
    assert arc["input_layer.2.weight"].shape == (64,)
    assert arc["body.3.shortcut_layer.0.weight"].shape == (128, 64, 1, 1)
    assert "body.4.shortcut_layer.0.weight" not in arc and "body.23.res_layer.5.fc2.weight" in arc
    assert arc["body.20.res_layer.5.fc1.weight"].shape == (16, 256, 1, 1)
    assert arc["output_layer.3.weight"].shape == (512, 25088)
    assert "body.24.res_layer.1.weight" not in arc
    with torch.no_grad():
        small = network(torch.zeros(1, 3, 112, 112))
    assert small.shape == (1, 512)


def test_features_are_unit_and_differentiable(mobile: nn.Module) -> None:
    features = FaceFeatures(mobile, Frame("celeba"))  # type: ignore[arg-type]
    x = torch.randn(2, 3, 64, 64, requires_grad=True)
    found = features(x)
    assert torch.allclose(found.norm(dim=1), torch.ones(2))
    (found[0] @ found[1]).backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    mirrored = features(x.detach().flip(-1), Frame("celeba").points()[None])
    assert mirrored.shape == (2, 128)


@pytest.mark.parametrize("wrap", ["", "state_dict", "net_state_dict", "module."])
def test_files_as_people_have_them(mobile: nn.Module, tmp_path: Path, wrap: str) -> None:
    weights = mobile.state_dict()
    if wrap == "module.":
        weights = {wrap + name: value for name, value in weights.items()}
    torch.save({wrap: weights, "epoch": 3} if "state" in wrap else weights, tmp_path / "a.pth")
    read = read_face_network(tmp_path / "a.pth", Frame("celeba"))
    assert isinstance(read.network, MobileFaceNet) and not read.training
    assert not any(p.requires_grad for p in read.parameters())
    save_file(
        {k: v.contiguous() for k, v in mobile.state_dict().items()}, tmp_path / "a.safetensors"
    )
    again = read_face_network(tmp_path / "a.safetensors", Frame("celeba"))
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(read(x), again(x))


def test_what_is_no_face_network_is_refused(mobile: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    weights = dict(mobile.state_dict())

    def refused(match: str) -> None:
        with pytest.raises(BadInput, match=match) as told:
            read_face_network(path, Frame("celeba"))
        assert "\n" not in told.value.message

    refused("no such file")
    path.write_bytes(b"no weights")
    refused("cannot be read")
    torch.save({"a": 1}, path)
    refused("holds no weights")
    torch.save({"a": torch.zeros(1)}, path)
    refused("no face network")
    torch.save({k: v for k, v in weights.items() if k != "conv2.bn.bias"}, path)
    refused("lacks weights conv2.bn.bias")
    torch.save({**weights, "head.weight": torch.zeros(3)}, path)
    refused("unknown weights head.weight")
    torch.save({**weights, "conv2.bn.bias": torch.zeros(3)}, path)
    refused("misshapen")
    torch.save(mobile, path)  # a pickle that would run code
    refused("cannot be read")
    path.with_suffix(".safetensors").write_bytes(b"12345678")
    path = path.with_suffix(".safetensors")
    refused("cannot be read")
    with pytest.raises(BadInput, match="has no face"):
        FaceFeatures(mobile, Frame("center"))  # type: ignore[arg-type]


@pytest.mark.celeba
@pytest.mark.skipif(not (CELEBA / "identity_CelebA.txt").is_file(), reason=f"no CelebA in {CELEBA}")
@pytest.mark.skipif(not NETWORK.is_file(), reason=f"no MobileFaceNet in {NETWORK}")
def test_people_are_told_apart() -> None:
    rows = [line.split() for line in (CELEBA / "identity_CelebA.txt").read_text().splitlines()]
    people = {name: int(person) for name, person in rows}
    by: dict[int, list[str]] = {}
    with zipfile.ZipFile(CELEBA / "img_align_celeba.zip") as archive:
        for file in sorted(n for n in archive.namelist() if n.endswith(".jpg")):
            by.setdefault(people[Path(file).name], []).append(file)
        chosen = [(p, f) for p, files in sorted(by.items())[:50] for f in files[:6]]
        squares = []
        for _, file in chosen:
            with archive.open(file) as stream, Image.open(stream) as image:
                box = image.crop((15, 35, 163, 183)).resize((128, 128), Image.Resampling.LANCZOS)
            squares.append(torch.from_numpy(np.array(box)).permute(2, 0, 1) / 127.5 - 1)
    features = read_face_network(NETWORK, Frame("celeba"))
    with torch.no_grad():
        found = torch.cat([features(torch.stack(squares[i : i + 50])) for i in range(0, 300, 50)])
    alike = (found @ found.T)[np.triu_indices(300, 1)].numpy()
    who = np.array([person for person, _ in chosen])
    same = (who[:, None] == who)[np.triu_indices(300, 1)]
    ranks = np.searchsorted(np.sort(alike[~same]), alike[same])
    assert (ranks / (~same).sum()).mean() >= 0.98
