"""Models on disk: ``model.safetensors`` and ``model.json``, loaded strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dclip.config import from_dict, nearest
from dclip.diffusion.schedule import Schedule
from dclip.domains import DOMAINS, PHOTOS
from dclip.errors import BadInput, CorruptArtifact
from dclip.models.prediction import FromVelocity
from dclip.models.tiny import TinyConfig, TinyUNet
from dclip.models.unet import UNet, UNetConfig

ARCHITECTURES: dict[str, tuple[type[Any], type[Any]]] = {
    "tiny": (TinyConfig, TinyUNet),
    "unet": (UNetConfig, UNet),
}


@dataclass(frozen=True)
class ModelInfo:
    """What a network is and was trained for.

    Attributes:
        architecture: a name in :data:`ARCHITECTURES`.
        config: the architecture's own settings.
        schedule: the noise schedule that the network knows.
        image_size: side in pixels of the images that it was trained on.
        prediction: what the bare network puts out, ``"eps"`` or ``"v"``; :meth:`build` adapts it.
        domain: what its pictures show, a name in :data:`dclip.domains.DOMAINS`.
        crop: how its pictures were cropped, see :func:`dclip.data.images.decode`.
    """

    architecture: str
    config: Any
    schedule: Schedule
    image_size: int
    prediction: str = "eps"
    domain: str = PHOTOS
    crop: str = "center"

    def __post_init__(self) -> None:
        if self.prediction not in ("eps", "v"):
            raise BadInput(f"unknown prediction {self.prediction!r}", "it is eps or v")
        if self.domain not in DOMAINS:
            raise BadInput(f"unknown domain {self.domain!r}", nearest(self.domain, DOMAINS))

    def build(self) -> nn.Module:
        """A network with fresh weights; ``eps = model(x, t)`` whatever it predicts inside."""
        model: nn.Module = ARCHITECTURES[self.architecture][1](self.config)
        return FromVelocity(model, self.schedule) if self.prediction == "v" else model

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form, as in ``model.json``."""
        return {
            "architecture": self.architecture,
            "config": json.loads(json.dumps(asdict(self.config))),
            "schedule": self.schedule.to_dict(),
            "image_size": self.image_size,
            "prediction": self.prediction,
            "domain": self.domain,
            "crop": self.crop,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelInfo:
        """Strict inverse of :meth:`to_dict`.

        Raises:
            BadInput: an unknown architecture, or settings that are unknown, missing or no such.
        """
        name = data["architecture"]
        if name not in ARCHITECTURES:
            raise BadInput(
                f"unknown architecture {name!r} in model.json",
                f"this dclip knows {', '.join(ARCHITECTURES)}; a newer dclip may know more",
            )
        return cls(
            architecture=name,
            config=from_dict(ARCHITECTURES[name][0], data["config"]),
            schedule=Schedule.from_dict(data["schedule"]),
            image_size=int(data["image_size"]),
            prediction=data["prediction"],
            domain=data["domain"],
            crop=data["crop"],
        )


def save_model(
    path: Path,
    info: ModelInfo,
    weights: Mapping[str, Tensor],
    *,
    dtype: torch.dtype | None = None,
) -> None:
    """Write ``model.safetensors`` and ``model.json`` into ``path``.

    Args:
        dtype: storage type of floating-point weights, e.g. ``torch.float16``; None keeps theirs.
    """
    stored = {
        k: (v.to(dtype) if dtype and v.is_floating_point() else v).detach().cpu().contiguous()
        for k, v in weights.items()
    }
    path.mkdir(parents=True, exist_ok=True)
    save_file(stored, path / "model.safetensors")
    (path / "model.json").write_text(json.dumps(info.to_dict(), indent=1, sort_keys=True) + "\n")


def read_info(path: Path) -> ModelInfo:
    """Read ``model.json`` of the artifact directory ``path``.

    Raises:
        BadInput: a network or settings that this dclip does not know.
        CorruptArtifact: not a readable description.
    """
    file = path / "model.json"
    try:
        return ModelInfo.from_dict(json.loads(file.read_text()))
    except BadInput as e:
        raise BadInput(f"{file}: {e.message}", e.fix) from e
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise CorruptArtifact(
            f"{file} cannot be read as a model description ({e})", "train or fetch the model again"
        ) from e


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read a safetensors file as float32; refuses pickles, broken files, NaN and infinity."""
    with_file = f"{file}"
    if not file.is_file():
        raise CorruptArtifact(f"{with_file} is missing", "train or fetch the model again")
    try:
        weights = load_file(file)
    except (SafetensorError, OSError) as e:
        head = file.read_bytes()[:2]
        if head in (b"PK", b"\x80\x02", b"\x80\x04"):
            raise BadInput(
                f"{with_file} is a pickled torch checkpoint, which dclip does not load (it can run"
                " code)",
                "convert it with safetensors.torch.save_file(state_dict, ...) where you trust it",
            ) from e
        raise CorruptArtifact(
            f"{with_file} is not a readable safetensors file ({e})", "run `dclip verify --full`"
        ) from e
    for name, value in weights.items():
        if value.is_floating_point():
            weights[name] = value.float()
            if not torch.isfinite(weights[name]).all():
                raise CorruptArtifact(
                    f"{with_file} holds NaN or infinite weights in {name}",
                    "the training that wrote it diverged: train again at a lower rate",
                )
    return weights


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Load strictly: a missing, unknown or wrongly shaped tensor is a BadInput that names it."""
    own = model.state_dict()
    missing = [k for k in own if k not in weights]
    unknown = [k for k in weights if k not in own]
    wrong = [k for k in own if k in weights and own[k].shape != weights[k].shape]
    for problem, names in (("lacks", missing), ("has unknown", unknown), ("has misshapen", wrong)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise BadInput(
                f"{where} {problem} weights {', '.join(names[:3])}{more}",
                "it was saved from another architecture: check model.json beside it",
            )
    model.load_state_dict(dict(weights))


def load_model(path: Path, device: str | torch.device = "cpu") -> tuple[nn.Module, ModelInfo]:
    """Load the network of an artifact directory, in float32, evaluation mode and frozen.

    Raises:
        BadInput: weights of another architecture, or a pickle.
        CorruptArtifact: unreadable files, NaN or infinite weights.
    """
    info = read_info(path)
    model = info.build()
    load_weights(model, read_weights(path / "model.safetensors"), str(path / "model.safetensors"))
    return model.to(device).eval().requires_grad_(False), info
