"""What guides an edit, from what a user wrote: which CLIP, and how far into the noise."""

from __future__ import annotations

from pathlib import Path

from dclip.context import Reporter
from dclip.errors import MissingArtifact
from dclip.guidance.prompts import Preset
from dclip.store import Artifact, Store


def find_clip(spec: str, store: Store, report: Reporter) -> tuple[str, Artifact | None]:
    """Where a CLIP is: what :func:`dclip.guidance.clip.load_guide` takes, and its artifact if any.

    An artifact of the store comes before a folder of the same name; ``./NAME`` is the folder.

    Args:
        spec: ``"embedded"``, an artifact's reference or path, a folder in open_clip's format, or
            ``NAME:TAG``.

    Raises:
        MissingArtifact: none of these.
        BadInput: an artifact of another kind.
    """
    folder = Path(spec).expanduser()
    try:
        artifact = store.resolve(spec, "clip")
    except MissingArtifact as error:
        if folder.is_dir():
            report.note(f"using the CLIP in the folder {folder}")
            return str(folder), None
        if ":" in spec:
            return spec, None
        error.fix += "; or give a folder in open_clip's format, or NAME:TAG"
        raise
    if folder.is_dir() and folder.resolve() != artifact.path.resolve():
        report.note(f"using {artifact.ref}, not the folder {spec}: that would be ./{spec}")
    return str(artifact.path), artifact


def preset_r(preset: Preset, T: int) -> int:
    """The label to invert to for a preset, by a model of ``T`` steps: the table counts 200."""
    return max(1, round(preset.r * T / 200))


def clip_role(number: int) -> str:
    """What the first, second, ... CLIP of an edit is called among the inputs of an artifact."""
    return "clip" if number == 1 else f"clip {number}"
