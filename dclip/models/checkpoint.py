"""Models on disk: ``model.safetensors`` and ``model.json``, loaded strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Le
from pydantic import AfterValidator, InstanceOf
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dclip.config import OneOf, from_dict, settings
from dclip.diffusion.schedule import Schedule
from dclip.diffusion.variance import VarianceRule
from dclip.domains import PHOTOS
from dclip.encoders.contract import EncoderInfo
from dclip.errors import BadInput, CorruptArtifact
from dclip.latent.contract import LatentInfo
from dclip.models.adm import ADM, ADMConfig
from dclip.models.prediction import ADAPTERS
from dclip.models.tiny import TinyConfig, TinyUNet
from dclip.models.unet import UNet, UNetConfig
from dclip.models.unet2d import UNet2D, UNet2DConfig
from dclip.models.unet2d_condition import UNet2DCondition, UNet2DConditionConfig

ARCHITECTURES: dict[str, tuple[type[Any], type[Any]]] = {
    "tiny": (TinyConfig, TinyUNet),
    "unet": (UNetConfig, UNet),
    "unet2d": (UNet2DConfig, UNet2D),
    "unet2d-condition": (UNet2DConditionConfig, UNet2DCondition),
    "adm": (ADMConfig, ADM),
}

GridRule = Literal["even", "leading", "trailing", "linspace", "diffusionclip"]
"""Which labels a walk of S steps visits: ours, one of diffusers' three, or DiffusionCLIP's."""


@settings
class Source:
    """Where imported weights came from.

    Attributes:
        id: a hub id, or the name of the file or folder.
        revision: the hub's commit.
        files: SHA-256 in hex of each file that was read, by name.
        licence: as a model card states it; None where none does.
        family: a name in :data:`dclip.models.pretrained.FAMILIES`.
    """

    id: str
    revision: str | None
    files: dict[str, str]
    licence: str | None
    family: str


@settings
class ModelInfo:
    """What a network is and was trained for. What has a default is of imported ones.

    Attributes:
        architecture: a name in :data:`ARCHITECTURES`.
        config: the architecture's own settings.
        schedule: the noise schedule that the network knows.
        image_size: side in pixels of the images that it was trained on.
        prediction: what the bare network puts out, ``"eps"``, ``"v"`` or ``"x0"``;
            :meth:`build` adapts it.
        grid: the rule by which published figures of this model chose their labels.
        steps_offset: what that rule adds to every label but 0 (diffusers' ``steps_offset``).
        grid_end: the label that a walk ends at: 0, the picture, or 1 where diffusers'
            ``set_alpha_to_one`` is off.
        clip_sample: whether published samplers clamp x0_hat to [-1, 1]; for sampling alone, never
            in an inversion or its decode.
        variance: of an ancestral step; see :data:`dclip.diffusion.variance.VarianceRule`.
        class_label: the class that a class-conditional network is asked for.
        source: where the weights came from.
        text: the encoder of the prompts that it reads; None of one that reads none.
        latent: the latents that it denoises; None of one that works on pixels.
        domain: what its pictures show, a name in :data:`dclip.domains.DOMAINS`.
        crop: how its pictures were cropped, see :func:`dclip.data.images.decode`.
        frame: where they have the face, a name in :data:`dclip.domains.FRAMES`.
    """

    architecture: str
    config: Any
    schedule: InstanceOf[Schedule]
    image_size: Annotated[int, Ge(1), Le(16384)]
    prediction: Annotated[str, AfterValidator(OneOf("dclip.models.prediction:ADAPTERS"))] = "eps"
    domain: Annotated[str, AfterValidator(OneOf("dclip.domains:DOMAINS"))] = PHOTOS
    crop: str = "center"
    frame: Annotated[str, AfterValidator(OneOf("dclip.domains:FRAMES"))] = "center"
    grid: GridRule = "even"
    steps_offset: Annotated[int, Ge(0)] = 0
    grid_end: Literal[0, 1] = 0
    clip_sample: bool = True
    variance: VarianceRule = "small"
    class_label: int | None = None
    source: Source | None = None
    text: EncoderInfo | None = None
    latent: LatentInfo | None = None

    def __post_init__(self) -> None:
        if self.steps_offset > self.schedule.T:
            raise BadInput(f"steps_offset {self.steps_offset} is outside 0..{self.schedule.T}")
        classes = self.classes
        if classes is not None and self.class_label is None:
            raise BadInput(
                f"this network is class-conditional ({classes} classes)",
                f"say which with --class 0..{classes - 1}",
            )
        if self.class_label is not None and not 0 <= self.class_label < (classes or 0):
            known = f"it knows 0..{classes - 1}" if classes else "this network knows no classes"
            raise BadInput(f"class {self.class_label}: {known}", "give another --class, or none")

    @property
    def classes(self) -> int | None:
        """How many classes a class-conditional network knows; None of another."""
        classes: int | None = getattr(self.config, "classes", None)
        return classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what the network denoises."""
        if self.latent is not None:
            side = self.image_size // self.latent.factor
            return self.latent.channels, side, side
        return int(getattr(self.config, "in_channels", 3)), self.image_size, self.image_size

    @property
    def prefix(self) -> str:
        """What stands before the bare network's names in those of :meth:`build`'s."""
        return "" if ADAPTERS[self.prediction] is None else "network."

    def build(self) -> nn.Module:
        """A network with fresh weights; ``eps = model(x, t)`` whatever it predicts inside."""
        given: dict[str, Any] = {} if self.text is None else {"text": self.text}
        if self.latent is not None:
            given["channels"] = self.latent.channels
        model: nn.Module = ARCHITECTURES[self.architecture][1](self.config, **given)
        if self.class_label is not None:
            model.class_label = self.class_label  # type: ignore[assignment]
        adapter = ADAPTERS[self.prediction]
        return model if adapter is None else adapter(model, self.schedule)

    def shapes(self) -> dict[str, torch.Size]:
        """The shape of every weight of :meth:`build`'s network, with none of it in memory."""
        with torch.device("meta"):
            return {k: v.shape for k, v in self.build().state_dict().items()}

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form, as in ``model.json``; what has its default is left out."""
        plain = {
            "architecture": self.architecture,
            "config": json.loads(json.dumps(asdict(self.config))),
            "schedule": self.schedule.to_dict(),
            "image_size": self.image_size,
            "prediction": self.prediction,
            "domain": self.domain,
            "crop": self.crop,
            "frame": self.frame,
        }
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name not in plain and value != f.default:
                plain[f.name] = value
                if is_dataclass(value) and not isinstance(value, type):
                    plain[f.name] = asdict(value)
        return plain

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
        if unknown := sorted(set(data) - {f.name for f in fields(cls)}):
            raise BadInput(
                f"unknown settings {', '.join(unknown)} in model.json",
                "a newer dclip may know them",
            )
        given = dict(data)
        given["config"] = from_dict(ARCHITECTURES[name][0], data["config"])
        given["schedule"] = Schedule.from_dict(data["schedule"])
        for part, kind in (("source", Source), ("text", EncoderInfo), ("latent", LatentInfo)):
            if given.get(part) is not None:
                given[part] = from_dict(kind, data[part])
        return cls(**given)


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


def check_weights(
    own: Mapping[str, torch.Size], given: Mapping[str, torch.Size], where: str
) -> None:
    """Refuse weights that are not a network's own, by name and shape.

    Raises:
        BadInput: a missing, unknown or wrongly shaped tensor; it is named.
    """
    missing = [k for k in own if k not in given]
    unknown = [k for k in given if k not in own]
    wrong = [k for k in own if k in given and own[k] != given[k]]
    for problem, names in (("lacks", missing), ("has unknown", unknown), ("has misshapen", wrong)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise BadInput(
                f"{where} {problem} weights {', '.join(names[:3])}{more}",
                "it was saved from another architecture: check what describes it",
            )


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Load strictly: a missing, unknown or wrongly shaped tensor is a BadInput that names it."""
    own = {k: v.shape for k, v in model.state_dict().items()}
    check_weights(own, {k: v.shape for k, v in weights.items()}, where)
    model.load_state_dict(dict(weights))


def load_model(
    path: Path, device: str | torch.device = "cpu", *, latents: bool = False
) -> tuple[nn.Module, ModelInfo]:
    """Load the network of an artifact directory, in float32, evaluation mode and frozen.

    Args:
        latents: whether the caller can use a network that denoises latents, not pixels.

    Raises:
        BadInput: weights of another architecture, a pickle, or a network of latents.
        CorruptArtifact: unreadable files, NaN or infinite weights.
    """
    info, file = read_info(path), path / "model.safetensors"
    if info.latent is not None and not latents:
        raise BadInput(
            f"{path} denoises latents, and this works on pixels",
            "use it with dclip sample, grid or edit --prompt, or take a model of pixels",
        )
    weights = read_weights(file)
    # Before a network is built that the description declares and the file does not hold.
    check_weights(info.shapes(), {k: v.shape for k, v in weights.items()}, str(file))
    model = info.build()
    model.load_state_dict(weights)
    return model.to(device).eval().requires_grad_(False), info
