"""What guides an edit, from what a user wrote: which CLIP, and how far into the noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dclip.context import Reporter
from dclip.domains import Domain
from dclip.errors import BadInput, MissingArtifact
from dclip.fingerprints import fingerprint, is_dir, is_file
from dclip.guidance.prompts import Preset
from dclip.store import Artifact, Store

if TYPE_CHECKING:
    import torch

    from dclip.guidance.clip import Guide


class FoundClip(NamedTuple):
    """A CLIP that is found, and not loaded or fetched yet.

    Attributes:
        where: what :func:`dclip.guidance.clip.load_guide` takes: folder, file or name.
        artifact: the artifact that it is, if any.
    """

    where: str
    artifact: Artifact | None = None

    @property
    def key(self) -> str:
        """What identifies it: the artifact's id, else its name, or its files' content (read)."""
        return self.artifact.id if self.artifact else fingerprint(self.where)

    @property
    def is_here(self) -> bool:
        """Whether it can be loaded without the network, as far as that is known unread."""
        return is_dir(Path(self.where)) or is_file(Path(self.where))

    def load(self, device: str | torch.device, report: Reporter | None = None) -> Guide:
        """The CLIP itself, fetched where it is not here.

        Raises: as :func:`dclip.guidance.clip.load_guide`.
        """
        from dclip.guidance.clip import load_guide

        name = f"CLIP {self.artifact.ref}" if self.artifact else None
        return load_guide(self.where, device, name=name, report=report)


def find_clip(spec: str, store: Store, report: Reporter, what: str = "CLIP") -> FoundClip:
    """The CLIP that a user means.

    An artifact of the store comes before a folder of the same name; ``./NAME`` is the folder.

    Args:
        spec: ``"embedded"``, an artifact's reference or path, a folder in open_clip's format or a
            file of weights in it, ``NAME:TAG``, ``NAME:TAG=FILE``, or ``hf-hub:ORG/REPO``.
        what: messages call it.

    Raises:
        MissingArtifact: none of these.
        BadInput: an artifact of another kind.
    """
    place = _place(spec)
    try:
        artifact = store.resolve(spec, "clip")
    except MissingArtifact as error:
        if is_dir(place) or is_file(place):
            report.note(f"using the {what} in the {'folder' if is_dir(place) else 'file'} {place}")
            return FoundClip(str(place))
        if ":" in spec:
            return FoundClip(spec)
        error.fix += "; or give a folder in open_clip's format, or NAME:TAG"
        raise
    if is_dir(place) and place.resolve() != artifact.path.resolve():
        report.note(f"using {artifact.ref}, not the folder {spec}: that would be ./{spec}")
    return FoundClip(str(artifact.path), artifact)


def find_guides(
    specs: Sequence[str], store: Store, domain: Domain, report: Reporter
) -> list[FoundClip]:
    """The CLIPs that guide.

    Args:
        specs: as :func:`find_clip` takes them; none takes the newest, else that of the domain.
        domain: what the base model draws.

    Raises:
        BadInput: the same one twice.
        MissingArtifact: one is not there.
    """
    if specs:
        found = [find_clip(spec, store, report) for spec in specs]
        if len(found) > 1 and len({fingerprint(each.where) for each in found}) < len(found):
            raise BadInput("one CLIP is given twice", "give each --clip once")
        return found
    if not store.list("clip") and domain.clip != "embedded":
        report.note(f"using CLIP {domain.clip}")
        return [FoundClip(domain.clip)]
    artifact = store.resolve(None, "clip", report, default="embedded")
    return [FoundClip(str(artifact.path), artifact)]


def inputs_of(found: Sequence[FoundClip]) -> dict[str, Artifact]:
    """The artifacts among CLIPs, by their roles in an artifact's inputs."""
    return {clip_role(n): each.artifact for n, each in enumerate(found, 1) if each.artifact}


def _place(spec: str) -> Path:
    try:
        return Path(spec).expanduser()
    except RuntimeError:  # "~somebody" who has no home here
        return Path(spec)


def preset_r(preset: Preset, T: int, *, imported: bool = False) -> int:
    """The timestep r to invert to for a preset, by a model of ``T``.

    Args:
        imported: the model was imported, for which the settings of papers count.
    """
    return max(1, round(preset.suited(imported).r * T))


def clip_role(number: int) -> str:
    """What the first, second, ... CLIP of an edit is called among the inputs of an artifact."""
    return "clip" if number == 1 else f"clip {number}"
