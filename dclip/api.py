"""The stages as functions, for notebooks and scripts: ``dclip.edit("me.jpg", with_="smiling")``.

Each function takes the settings of its stage's config as keywords, under the names of the command
line's options with ``_`` for ``-`` (``with_`` for ``--with``, since ``with`` is a word of Python).
Beside them each takes:

- ``store``: the folder of the store; else ``DCLIP_STORE``, else ``./artifacts``.
- ``device``, ``workers``, ``force``: as on the command line.
- ``quiet``: show no progress and no notes.

It returns a :class:`Result`, which a notebook shows as a picture and which other functions take
where they take an artifact's reference.
"""

from __future__ import annotations

import base64
import functools
import html
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dclip.config import from_dict
from dclip.context import Context, Reporter, Silent
from dclip.errors import BadInput, DclipError
from dclip.store import Artifact, Store

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_SHOWN = 4  # pictures that a notebook shows of one result
MOST_BYTES = 8_000_000  # of a picture that is shown


class Result:
    """An artifact in the store, as a notebook shows it.

    Attributes:
        artifact: the artifact; its ``id``, ``kind``, ``name``, ``version``, ``ref``, ``path``,
            ``metrics`` and ``fresh`` are attributes of the result too.
    """

    def __init__(self, artifact: Artifact, shown: Sequence[Path] = ()) -> None:
        self.artifact = artifact
        self._shown = tuple(shown)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.artifact, name)

    def __repr__(self) -> str:
        return f"<{self.artifact.ref}  {self.artifact.id[:12]}  {self.artifact.path}>"

    @property
    def files(self) -> list[Path]:
        """The pictures: of edits each edited photo, of anything else its overview."""
        inside = sorted((self.artifact.path / "images").glob("*.png"))
        return inside or list(self._shown) or _overview(self.artifact)

    @property
    def images(self) -> list[Image]:
        """The pictures, read."""
        from PIL import Image as images

        found = []
        for file in self.files:
            if file.suffix == ".png":
                with images.open(file) as image:
                    found.append(image.convert("RGB"))
        return found

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows where it shows one picture."""
        pictures = self._to_show()
        return pictures[0].read_bytes() if pictures else None

    def _repr_html_(self) -> str:
        """What a notebook shows: the reference, and the overview."""
        blocks = [f"<code>{html.escape(self.artifact.ref)}</code>"]
        for picture in self._to_show()[:MOST_SHOWN]:
            data = base64.b64encode(picture.read_bytes()).decode("ascii")
            alt = html.escape(picture.name, quote=True)
            blocks.append(f'<img src="data:image/png;base64,{data}" alt="{alt}">')
        return "<br>".join(blocks)

    def _to_show(self) -> list[Path]:
        found = _overview(self.artifact) or self.files
        return [p for p in found if p.suffix == ".png" and p.stat().st_size <= MOST_BYTES]


def _overview(artifact: Artifact) -> list[Path]:
    return sorted(p for p in artifact.path.iterdir() if p.suffix == ".png")


def _store(store: str | os.PathLike[str] | Store | None) -> Store:
    if isinstance(store, Store):
        return store
    return Store(Path(store or os.environ.get("DCLIP_STORE") or "artifacts").expanduser())


def _reporter(quiet: bool) -> Reporter:
    if quiet:
        return Silent()
    from dclip.cli.output import Output
    from dclip.cli.progress import reporter_for

    return reporter_for(Output())


def _plain(value: Any) -> Any:
    """A setting as configs hold it: a result stands for its artifact's folder."""
    if isinstance(value, Result):
        return str(value.artifact.path.resolve())
    if isinstance(value, Artifact):
        return str(value.path.resolve())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


def _config(cls: type[Any], settings: Mapping[str, Any], fixed: Mapping[str, Any]) -> Any:
    """A stage's config, with the losses' weights as one table."""
    from dclip.config import option
    from dclip.guidance.kinds import LOSSES

    own = set(cls.__dataclass_fields__)
    names = {name: name for name in own}
    for name in own:
        for spelled in option(cls, name).flags:
            names[spelled.strip("-").replace("-", "_")] = name
    values: dict[str, Any] = {}
    weights: dict[str, Any] = {}
    for name, value in settings.items():
        plain = name.rstrip("_")
        if "weights" in own and plain in LOSSES and plain not in names:
            weights[plain] = value
        elif value is not None:
            values[names.get(plain, plain)] = _plain(value)
    if weights:
        values["weights"] = {**values.get("weights", {}), **weights}
    return from_dict(cls, {**values, **fixed}, defaults=True, where=cls.__name__)


def _run(
    run: Callable[[Any, Store, Context], Artifact],
    cls: type[Any],
    settings: dict[str, Any],
    **fixed: Any,
) -> Result:
    """Run a stage with what every function takes, and its own settings."""
    store = _store(settings.pop("store", None))
    context = Context(
        device=settings.pop("device", "auto"),
        report=_reporter(settings.pop("quiet", False)),
        force=settings.pop("force", False),
        **({"workers": workers} if (workers := settings.pop("workers", None)) else {}),
    )
    try:
        return Result(run(_config(cls, settings, fixed), store, context))
    except DclipError as error:
        # A traceback shows the message alone.
        for line in (f"fix: {error.fix}" if error.fix else "", *getattr(error, "steps", ())):
            if line:
                error.add_note(line)
        raise


def prepare(source: str = "folder", **settings: Any) -> Result:
    """Photos, or drawn faces, to a data artifact.

    Args:
        source: ``"folder"``, ``"celeba"``, ``"npz"``, ``"parquet"``, ``"webdataset"`` or ``"hf"``
            (all with ``root``), or ``"faces"``.
        settings: of :class:`dclip.configs.prepare.PrepareConfig`.
    """
    from dclip.configs.prepare import PrepareConfig
    from dclip.stages.prepare import run

    return _run(run, PrepareConfig, settings, source=source)


def edit(
    photos: Any = (),
    *,
    out: str | os.PathLike[str] | None = None,
    make: bool = False,
    root: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> Result:
    """Edit photos; nothing is written beside them unless ``out`` says where.

    Args:
        photos: a file or folder, several, or pictures of Pillow.
        out: a folder for the pictures, or a file for one.
        make: first make every tuned model that is missing and that a preset names.
        root: with ``make``, photos to learn from.
        settings: of :class:`dclip.configs.edit.EditConfig`, such as ``with_="smiling:0.8"``.
    """
    from dclip.configs.edit import EditConfig
    from dclip.editing.results import copy_pictures
    from dclip.stages.chain import run_edit

    run = functools.partial(run_edit, make=make, root=None if root is None else os.fspath(root))
    with tempfile.TemporaryDirectory() as folder:
        files = _files(photos, Path(folder))
        result = _run(run, EditConfig, settings, **({"photos": files} if files else {}))
        if out is not None:
            copy_pictures(result.artifact, Path(out), files)
    return result


def _files(photos: Any, folder: Path) -> list[str]:
    """Photos as files: pictures of Pillow are written to ``folder``."""
    several = photos if isinstance(photos, Iterable) and not isinstance(photos, str) else [photos]
    files = []
    for number, photo in enumerate(several, 1):
        if isinstance(photo, str | os.PathLike):
            files.append(os.fspath(photo))
        elif hasattr(photo, "save") and hasattr(photo, "getexif"):
            files.append(str(folder / f"photo-{number}.png"))
            photo.save(files[-1])
        else:
            raise BadInput(
                f"a photo is a {type(photo).__name__}",
                "give paths, or pictures of Pillow (PIL.Image.fromarray for an array)",
            )
    return files


def find(ref: str, *, store: str | os.PathLike[str] | Store | None = None) -> Result:
    """The artifact that a reference names."""
    return Result(_store(store).find(ref))


def ls(
    kind: str | None = None, *, store: str | os.PathLike[str] | Store | None = None
) -> list[Result]:
    """The store's artifacts, of a kind or all."""
    return [Result(artifact) for artifact in _store(store).list(kind)]


def _stage(name: str, module: str, config: str, says: str) -> Callable[..., Result]:
    """A function that runs a stage."""

    def function(**settings: Any) -> Result:
        from importlib import import_module

        cls = getattr(import_module(f"dclip.configs.{module}"), config)
        return _run(import_module(f"dclip.stages.{module}").run, cls, settings)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = (
        f"{says}\n\nArgs:\n    settings: of :class:`dclip.configs.{module}.{config}`.\n"
    )
    return function


train = _stage("train", "train", "TrainConfig", "Train a base model on a data artifact.")
sample = _stage("sample", "sample", "SampleConfig", "Draw pictures out of noise.")
invert = _stage("invert", "invert", "InvertConfig", "Pictures to latents.")
finetune = _stage("finetune", "finetune", "FinetuneConfig", "Tune a base model toward a text.")
slider = _stage("slider", "slider", "SliderConfig", "An edit by words as a tuned model.")
grid = _stage("grid", "grid", "GridConfig", "A figure for print.")
evaluate = _stage("evaluate", "eval", "EvalConfig", "Score a tuned model.")
inspect = _stage("inspect", "inspect", "InspectConfig", "What a model works on, as figures.")
demo = _stage("demo", "demo", "DemoConfig", "All of it, on drawn faces.")
train_autoencoder = _stage(
    "train_autoencoder", "autoencoder_train", "AutoencoderTrainConfig", "Train an autoencoder."
)
map_encoder = _stage(
    "map_encoder", "encoder_map", "EncoderMapConfig", "One text encoder's states as another's."
)
train_clip = _stage("train_clip", "clip_train", "ClipTrainConfig", "Train a CLIP that guides.")
train_judge = _stage("train_judge", "judge_train", "JudgeTrainConfig", "Train a judge.")
