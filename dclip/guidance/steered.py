"""What steers a model, found and loaded: for sampling, and for edits without a tuned model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dclip import guiding
from dclip.context import Reporter
from dclip.data.paths import read_file
from dclip.diffusion.guidance import Guided, Through
from dclip.diffusion.network import EpsModel
from dclip.diffusion.schedule import Schedule
from dclip.domains import Domain
from dclip.guidance.clip import Guide
from dclip.guidance.steering import KINDS, Given, Steer, parse, steering
from dclip.guiding import FoundClip
from dclip.models.perceptual import lpips_missing
from dclip.store import Artifact, Store


@dataclass(frozen=True)
class Steers:
    """What to steer by, before any CLIP is loaded.

    Attributes:
        steers: as the user wrote them.
        clips: that see the pictures; none where no steer needs one.
    """

    steers: tuple[Steer, ...]
    clips: tuple[FoundClip, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """What identifies them in a config; a picture counts by its content."""
        pictures = [Path(each.value).expanduser() for each in self.steers if each.kind == "image"]
        return {
            "guide": [str(steer) for steer in self.steers],
            "images": [hashlib.sha256(read_file(p, str(p))).hexdigest() for p in pictures],
            "clips": [clip.key for clip in self.clips],
        }

    @property
    def inputs(self) -> dict[str, Artifact]:
        """The artifacts among the CLIPs, by their roles."""
        return guiding.inputs_of(self.clips)

    def load(self, device: Any, report: Reporter, through: Through) -> Steering:
        """Load the CLIPs.

        Raises: as :func:`dclip.guidance.clip.load_guide`.
        """
        return Steering(self.steers, [clip.load(device, report) for clip in self.clips], through)


def find_steers(
    texts: Sequence[str], clips: Sequence[str], store: Store, domain: Domain, report: Reporter
) -> Steers:
    """Read ``KIND:WHAT:STRENGTH`` texts and find the CLIPs that they need.

    Raises:
        BadInput: a text that cannot be read, or LPIPS without its weights.
        MissingArtifact: no such CLIP.
    """
    steers = tuple(parse(text) for text in texts)
    needed = any("guides" in KINDS[steer.kind].needs for steer in steers)
    if any(steer.kind == "lpips" for steer in steers) and (missing := lpips_missing()):
        raise missing
    found = guiding.find_guides(clips, store, domain, report) if needed else []
    return Steers(steers, tuple(found))


@dataclass(frozen=True)
class Steering:
    """Steers with their CLIPs.

    Attributes:
        steers: what to steer by.
        guides: the CLIPs.
        through: what the gradient passes, see :class:`dclip.diffusion.guidance.Guided`.
    """

    steers: Sequence[Steer]
    guides: Sequence[Guide]
    through: Through = "x0"

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
        given = Given(guides=self.guides, photos=photos, keys=keys, views=1 if keys else 0)
        loss = steering(self.steers, given)
        return Guided(model, schedule, loss, scale=strength, through=self.through)
