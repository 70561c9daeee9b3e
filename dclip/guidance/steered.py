"""What steers a model, found and loaded: for sampling, and for edits without a tuned model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dclip import guiding
from dclip.context import Reporter
from dclip.data.paths import read_file
from dclip.diffusion.guidance import Guided, Loss, Through
from dclip.diffusion.network import EpsModel
from dclip.diffusion.schedule import Schedule
from dclip.domains import DOMAINS
from dclip.errors import BadInput
from dclip.guidance.clip import Guide
from dclip.guidance.steering import KINDS, Given, Steer, parse, steering
from dclip.guiding import FoundClip
from dclip.models.checkpoint import ModelInfo
from dclip.models.face import KNOWN, is_torchscript, load_face_network
from dclip.models.perceptual import lpips_missing
from dclip.photos.frames import Frame, frame_of
from dclip.store import Artifact, Store


@dataclass(frozen=True)
class Steers:
    """What to steer by, before any CLIP is loaded.

    Attributes:
        steers: as the user wrote them.
        clips: that see the pictures; none where no steer needs one.
        size: side of the pictures.
        frame: where they have the face.
    """

    steers: tuple[Steer, ...]
    clips: tuple[FoundClip, ...]
    size: int
    frame: Frame

    @property
    def settings(self) -> dict[str, Any]:
        """What identifies them in a config; a picture or a network counts by its content."""
        faces = self._hashes("face")
        return {
            "guide": [str(steer) for steer in self.steers],
            "images": self._hashes("image"),
            **({"faces": faces} if faces else {}),
            "clips": [clip.key for clip in self.clips],
        }

    def _face(self, file: str, device: torch.device) -> nn.Module:
        path = Path(file).expanduser()
        if path.is_file() and is_torchscript(path):
            raise BadInput(
                f"{file} is a TorchScript program, and a guide runs none",
                f"give weights of {' or '.join(KNOWN)}",
            )
        return load_face_network(str(path), device, self.size, frame=self.frame)

    def _files(self, kind: str) -> list[str]:
        return [each.value for each in self.steers if each.kind == kind]

    def _hashes(self, kind: str) -> list[str]:
        paths = [Path(file).expanduser() for file in self._files(kind)]
        return [hashlib.sha256(read_file(path, str(path))).hexdigest() for path in paths]

    @property
    def inputs(self) -> dict[str, Artifact]:
        """The artifacts among the CLIPs, by their roles."""
        return guiding.inputs_of(self.clips)

    def load(self, device: Any, report: Reporter, through: Through | Literal["latent"]) -> Steering:
        """Load the CLIPs and the face networks.

        Raises:
            As :func:`dclip.guidance.clip.load_guide` and
            :func:`dclip.models.face.load_face_network`.
        """
        clips = [clip.load(device, report) for clip in self.clips]
        faces = {file: self._face(file, torch.device(device)) for file in self._files("face")}
        return Steering(self.steers, clips, through, faces)


def find_steers(
    texts: Sequence[str], clips: Sequence[str], store: Store, info: ModelInfo, report: Reporter
) -> Steers:
    """Read ``KIND:WHAT:STRENGTH`` texts and find the CLIPs that they need.

    Args:
        info: the model that is steered.

    Raises:
        BadInput: a text that cannot be read, or LPIPS without its weights.
        MissingArtifact: no such CLIP.
    """
    steers = tuple(parse(text) for text in texts)
    needed = any("guides" in KINDS[steer.kind].needs for steer in steers)
    if any(steer.kind == "lpips" for steer in steers) and (missing := lpips_missing()):
        raise missing
    found = guiding.find_guides(clips, store, DOMAINS[info.domain], report) if needed else []
    return Steers(steers, tuple(found), info.image_size, frame_of(info))


@dataclass(frozen=True)
class Steering:
    """Steers with their CLIPs.

    Attributes:
        steers: what to steer by.
        guides: the CLIPs.
        through: what the gradient passes, see :class:`dclip.diffusion.guidance.Guided`;
            ``"latent"`` is for :mod:`dclip.diffusion.optimised`, which needs :meth:`loss` alone.
        faces: face recognition networks by their files.
    """

    steers: Sequence[Steer]
    guides: Sequence[Guide]
    through: Through | Literal["latent"] = "x0"
    faces: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)

    def over(
        self,
        model: EpsModel,
        schedule: Schedule,
        *,
        keys: Sequence[int] = (),
        photos: Tensor | None = None,
        strength: float = 1.0,
    ) -> EpsModel:
        """The model, steered.

        Args:
            keys: of each picture, which decide the crop that the CLIPs see; none shows it whole.
            photos: (B, 3, H, W) in [-1, 1], what the pictures started from, in an edit.
            strength: factor on all the steers; 0 returns the model itself.
        """
        if not strength or not any(steer.scale for steer in self.steers):
            return model
        assert self.through != "latent"
        loss = self.loss(keys=keys, photos=photos)
        return Guided(model, schedule, loss, scale=strength, through=self.through)

    def loss(self, *, keys: Sequence[int] = (), photos: Tensor | None = None) -> Loss:
        """All the steers' losses, each by its strength; see :meth:`over` for the arguments."""
        given = Given(
            guides=self.guides, photos=photos, faces=self.faces, keys=keys, views=1 if keys else 0
        )
        return steering(self.steers, given)
