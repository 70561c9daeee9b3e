"""The chain of stages that leads to an edit: what of it is there, what is missing, making it."""

from __future__ import annotations

import dataclasses
import difflib
import shlex
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dclip.config import flag, option
from dclip.configs.demo import SEED
from dclip.configs.edit import EditConfig
from dclip.configs.finetune import FinetuneConfig
from dclip.configs.invert import InvertConfig
from dclip.configs.prepare import PrepareConfig
from dclip.configs.train import TrainConfig
from dclip.context import Context
from dclip.data.celeba import FOLDER, ZIP
from dclip.domains import DOMAINS, FACES
from dclip.editing.plan import DrawnOnly
from dclip.editing.spec import PartSpec
from dclip.errors import BadInput, DclipError, MissingArtifact
from dclip.guidance.prompts import PRESETS
from dclip.models.checkpoint import read_info
from dclip.stages import edit, finetune, invert, prepare, train
from dclip.store import Artifact, Planned, Store, slug

DRAWN_COUNT = 144  # faces to draw where none are there, a third of them held out
DRAWN_LATENTS = 48  # of them to tune on and to score, as in the demo: minutes on a laptop
PLACE = "DIR"  # stands for a folder that only the user knows
PHOTOS = "photos"  # name of data and base in commands where the user has named no folder

Run = Callable[[Any, Store, Context], Artifact]


@dataclass(frozen=True)
class Link:
    """One stage of a chain.

    Attributes:
        kind: of what it makes.
        ref: what is there already; None where it has to be made.
        command: the command line that makes it.
    """

    kind: str
    ref: str | None
    command: str

    def __str__(self) -> str:
        return f"{self.kind:<8} {self.ref or 'missing':<20} {self.command}"


class NotMade(MissingArtifact):
    """A tuned model that is still to be made.

    Attributes:
        steps: the whole chain to it, a line each.
    """

    def __init__(self, message: str, fix: str, links: Sequence[Link]) -> None:
        super().__init__(message, fix)
        self.steps = tuple(str(link) for link in links)


class Chain:
    """Runs stages one after the other; in a dry run, plans those that can be planned.

    Attributes:
        plans: of a dry run, in order.
        links: of a dry run, in order.
    """

    def __init__(self, store: Store, context: Context) -> None:
        self.store, self.context = store, context
        self.plans: list[dict[str, Any]] = []
        self.links: list[Link] = []

    def make(
        self,
        stage: str,
        kind: str,
        run: Run,
        config: Any,
        name: str | None = None,
        *,
        last: bool = False,
        **inputs: Artifact | None,
    ) -> Artifact | None:
        """The artifact; in a dry run None for the last one, and for what is not made yet.

        Args:
            stage, kind: what makes it, and what it is.
            run: the stage.
            config: of the stage.
            name: of the artifact, where the config does not say it.
            last: whether it ends the chain.
            inputs: what it is made from; None for what is not made yet.
        """
        if None not in inputs.values():
            try:
                return run(config, self.store, self.context)
            except Planned as planned:
                plan = planned.plan
                self.plans.append(plan)
                self.links.append(Link(kind, plan["ref"], command(stage, config)))
                return self.store.find(plan["ref"]) if plan["cached"] and not last else None
        self.links.append(Link(kind, None, command(stage, config)))
        self.plans.append(self._unknown(stage, kind, config, name, inputs))
        return None

    def _unknown(
        self,
        stage: str,
        kind: str,
        config: Any,
        name: str | None,
        inputs: dict[str, Artifact | None],
    ) -> dict[str, Any]:
        """What can be said of a stage whose inputs are not made yet."""
        known = {k: v for k, v in asdict(config).items() if v is not None}
        names = {plan["kind"]: f"{plan['kind']}/{plan['name']}, to be made" for plan in self.plans}
        return {
            "stage": stage,
            "kind": kind,
            "name": name or known["name"],
            "config": {k: v for k, v in known.items() if k not in ("name", "seed", *inputs)},
            "inputs": {
                role: {"id": made.id, "ref": made.ref}
                if made
                else {"id": None, "ref": names.get(role, f"{role}, to be made")}
                for role, made in inputs.items()
            },
            "seed": config.seed,
            "key": None,
            "cached": False,
            "ref": None,
            "resumes": False,
            "estimate": None,
        }


def command(stage: str, config: Any) -> str:
    """The command line of a stage with a config: its settings that differ from the defaults."""
    words = ["dclip", *stage.split("."), *([config.source] if stage == "prepare" else [])]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        own = option(type(config), field.name)
        if isinstance(value, dict):
            continue  # the weights of losses, which no chain sets
        if value == field.default or (stage == "prepare" and field.name == "source"):
            continue
        name = own.flags[0] if own.flags else flag(field.name)
        if own.argument:
            words += value
        elif isinstance(value, bool):
            words.append(name if value else f"--no-{name[2:]}")
        elif isinstance(value, tuple) and all(isinstance(each, str) for each in value):
            words += [word for each in value for word in (name, each)]
        elif isinstance(value, tuple):
            words.append(f"{name}={','.join(f'{each:g}' for each in value)}")
        else:
            words += [name, str(value)]
    return shlex.join(words)


def run_edit(
    config: EditConfig,
    store: Store,
    context: Context = Context(),
    *,
    make: bool = False,
    root: str | None = None,
) -> Artifact:
    """The stage ``edit``, and with ``make`` first every stage that it needs and lacks.

    Args:
        make: make tuned models that presets name and that are missing: data, base, latents, tuned.
        root: photos to learn from: a folder, CelebA in any form, or a data artifact.

    Raises:
        NotMade: a tuned model is missing; with the chain that makes it.
        Planned: ``context.dry_run``, with the plans of all that leads to the edit.
    """
    if root is not None and not make:
        raise BadInput("--root has no effect without --make", "give --make, or leave --root out")
    if not config.parts:  # guides need no tuned model
        return edit.run(config, store, context)
    if make:
        return _Making(config, store, context, root).run()
    try:
        return edit.run(config, store, context)
    except (MissingArtifact, DrawnOnly) as error:
        quietly = Context(device=context.device, dry_run=True)
        raise _Making(config, store, quietly, None, telling=True).explained(error) from error


class _Making:
    """One edit with the chain that leads to it.

    Args:
        telling: only the chain is wanted, and what the user alone knows may be left open in it.
    """

    def __init__(
        self,
        config: EditConfig,
        store: Store,
        context: Context,
        root: str | None,
        *,
        telling: bool = False,
    ) -> None:
        self.config, self.store, self.root, self.telling = config, store, root, telling
        self.chain = Chain(store, context)

    def run(self) -> Artifact:
        data = self._own_data() if self.config.data is not None else None
        drawn = self._drawn(data)
        parts = self._parts(drawn, data)
        made_as = iter(str(part) for part, _ in parts)
        texts = tuple("+".join(next(made_as) for _ in each) for each in self.config.edits)
        config = replace(self.config, tuned=texts)
        if data is not None:
            config = replace(config, data=data.ref)
        made = {f"tuned{n}" if n > 1 else "tuned": a for n, (_, a) in enumerate(parts, 1)}
        if self.config.data is not None:
            made["data"] = data
        name = self.config.name or slug("-".join(part.ref or "" for part, _ in parts))
        done = self.chain.make("edit", "edits", edit.run, config, name, last=True, **made)
        if done is None:
            *before, last = self.chain.plans
            raise Planned(last, before)
        return done

    # --- what is wanted

    def _own_data(self) -> Artifact | None:
        """The data artifact that --data names; drawn or prepared where it is not there."""
        ref = self.config.data
        assert ref is not None
        try:
            return self.store.resolve(ref, "data", self.chain.context.report)
        except MissingArtifact:
            if ref == "faces":
                return self._draw()
            if Path(ref).expanduser().exists():
                return self._prepare(ref)
            raise

    def _drawn(self, data: Artifact | None) -> bool:
        """Whether what is to be edited is drawn."""
        if self.config.data is None:
            return False
        return self.config.data == "faces" if data is None else _is_drawn(data)

    def _lacking(self, drawn: bool) -> list[str]:
        """The presets that are named and have no tuned model for such pictures."""
        return [name for part in self.config.parts if (name := self._to_make(part, drawn))]

    def _to_make(self, part: PartSpec, drawn: bool) -> str | None:
        """The preset that a part names, if a tuned model for it has to be made."""
        name = preset_named(part.ref) if part.ref else None
        try:
            found = self.store.resolve(part.ref, "tuned")
        except MissingArtifact:
            if name is None:
                raise
            return name
        fits = self.config.anyway or drawn or not self._draws(found)
        return None if fits else name

    def _draws(self, tuned: Artifact) -> bool:
        with suppress(DclipError):
            return DOMAINS[read_info(self.store.input(tuned, "model").path).domain].drawn
        return False

    # --- making it

    def _parts(self, drawn: bool, data: Artifact | None) -> list[tuple[PartSpec, Artifact | None]]:
        """The parts of the edit with their tuned models, those made that are missing."""
        names = [self._to_make(part, drawn) for part in self.config.parts]
        there = {
            n: self.store.resolve(part.ref, "tuned", self.chain.context.report)
            for n, (part, name) in enumerate(zip(self.config.parts, names, strict=True))
            if name is None
        }
        if len(there) < len(names):
            first = next(iter(there.values()), None)
            base, learnt = self._base(drawn, data, first)
        parts = []
        for n, (part, name) in enumerate(zip(self.config.parts, names, strict=True)):
            if name is None:
                tuned: Artifact | None = there[n]
            else:
                tuned = self._tune(name, base, learnt, drawn)
            ref = tuned.ref if tuned else slug(name or "")
            parts.append((replace(part, ref=ref), tuned))
        return parts

    def _base(
        self, drawn: bool, data: Artifact | None, tuned: Artifact | None
    ) -> tuple[Artifact | None, Artifact | None]:
        """The base model and the data to tune it on; None for what a dry run has not made."""
        if self.root is not None:
            learnt = self._prepare(self.root)
            return self._train(learnt), learnt
        base = self.store.input(tuned, "model") if tuned else self._newest_model(drawn)
        if base is not None:
            return base, self._learnt(base, drawn, data)
        if self.config.data is not None:
            return self._train(data), data
        learnt = self._newest_data(drawn=False)
        if learnt is not None:
            self._there(learnt)
        elif self.telling:
            place = PrepareConfig("folder", root=PLACE, domain=self._domain(), name=PHOTOS)
            self.chain.links.append(Link("data", None, command("prepare", place)))
        else:
            raise _no_photos()
        return self._train(learnt), learnt

    def _there(self, artifact: Artifact) -> None:
        """Say what is taken of what is there."""
        self.chain.context.report.note(f"using {artifact.ref}")
        made = f"(made by `dclip {artifact.manifest.stage.replace('.', ' ')}`)"
        self.chain.links.append(Link(artifact.kind, artifact.ref, made))

    def _newest_model(self, drawn: bool) -> Artifact | None:
        found = []
        for model in self.store.list("model"):
            with suppress(DclipError):
                if DOMAINS[read_info(model.path).domain].drawn == drawn:
                    found.append(model)
        newest = _newest(found) or (self.store.resolve("embedded", "model") if drawn else None)
        if newest is not None:
            self._there(newest)
        return newest

    def _learnt(self, base: Artifact, drawn: bool, data: Artifact | None) -> Artifact | None:
        """Data to tune a base on: what it was trained on, else what there is of its domain."""
        with suppress(DclipError):
            return self.store.input(base, "data")
        if self.config.data is not None:
            return data
        found = self._newest_data(drawn)
        if found is None and not drawn:
            raise _no_photos()
        return found or self._draw(read_info(base.path).image_size)

    def _newest_data(self, drawn: bool) -> Artifact | None:
        return _newest([a for a in self.store.list("data") if _is_drawn(a) == drawn])

    def _draw(self, size: int = 64) -> Artifact | None:
        config = PrepareConfig(
            "faces", count=DRAWN_COUNT, size=size, split="67/33", name="faces", seed=SEED
        )
        return self.chain.make("prepare", "data", prepare.run, config)

    def _prepare(self, place: str) -> Artifact | None:
        with suppress(MissingArtifact):
            return self.store.resolve(place, "data")
        path = Path(place).expanduser()
        if path.suffix == ".zip" or path.name == FOLDER or (path / FOLDER).exists():
            celeba = True
        else:
            celeba = (path / ZIP).exists() or (path / "celeba").exists()
        if celeba:
            config = PrepareConfig("celeba", root=place, name="celeba")
        else:
            name = slug(path.resolve().name, PHOTOS)
            config = PrepareConfig("folder", root=place, domain=self._domain(), name=name)
        return self.chain.make("prepare", "data", prepare.run, config)

    def _domain(self) -> str:
        """What the photos to learn from show, by the first preset that is named."""
        named = (preset_named(part.ref) for part in self.config.parts if part.ref)
        return next((PRESETS[name].domains[-1] for name in named if name), FACES)

    def _train(self, data: Artifact | None) -> Artifact | None:
        name = data.name if data else self._planned("data") or PHOTOS
        config = TrainConfig(data=data.ref if data else name, name=name)
        return self.chain.make("train", "model", train.run, config, data=data)

    def _tune(
        self, name: str, base: Artifact | None, data: Artifact | None, drawn: bool
    ) -> Artifact | None:
        model = base.name if base else self._planned("model") or PHOTOS
        source = data.name if data else self._planned("data") or PHOTOS
        called = invert.name_of(source, model)
        inverting = InvertConfig(
            data=data.ref if data else source,
            model=base.ref if base else model,
            preset=name,
            name=called,
            count=DRAWN_LATENTS if drawn else InvertConfig.count,
        )
        latents = self.chain.make("invert", "latents", invert.run, inverting, data=data, model=base)
        tuning = FinetuneConfig(
            preset=name, latents=latents.ref if latents else called, name=slug(name)
        )
        return self.chain.make(
            "finetune", "tuned", finetune.run, tuning, latents=latents, model=base
        )

    def _planned(self, kind: str) -> str | None:
        return next((p["name"] for p in reversed(self.chain.plans) if p["kind"] == kind), None)

    # --- telling it

    def explained(self, error: DclipError) -> DclipError:
        """What a missing tuned model takes, in place of an error that names one kind alone."""
        if not self.config.tuned and isinstance(error, DrawnOnly):
            return error
        if not self.config.tuned:
            if self.store.list("tuned"):
                return error
            return MissingArtifact(
                "the store has no tuned model, and no edit is named",
                f"name one of the presets: `dclip edit {self._photos()} --with smiling`;"
                " `dclip presets` lists them",
            )
        unknown = self._unknown_name()
        if unknown is not None:
            return unknown
        try:
            data = self._own_data() if self.config.data is not None else None
            drawn = self._drawn(data)
            lacking = self._lacking(drawn)
            if not lacking:
                return error
            self._parts(drawn, data)
        except DclipError:
            return error
        what = " and ".join(lacking)
        preset = f"{what} is a preset" if len(lacking) == 1 else f"{what} are presets"
        known = "drawn faces" if drawn else "photos"
        root = "" if drawn or self._has("model") or self._has("data") else " --root DIR"
        words = ["dclip", "edit", *self._what(), "--with", "+".join(self.config.tuned), "--make"]
        return NotMade(
            f"{preset} that no model in this store is tuned to for {known}",
            f"`{shlex.join(words)}{root}` makes what is missing of the following; or run it one"
            " after the other",
            [*self.chain.links, Link("edits", None, shlex.join(words[:-1]))],
        )

    def _has(self, kind: str) -> bool:
        return any(link.kind == kind and link.ref for link in self.chain.links)

    def _photos(self) -> str:
        return shlex.join(self._what())

    def _what(self) -> list[str]:
        return ["--data", self.config.data] if self.config.data else list(self.config.photos[:3])

    def _unknown_name(self) -> MissingArtifact | None:
        """The error for a name that is neither a tuned model's nor a preset's."""
        for part in self.config.parts:
            if part.ref is None or preset_named(part.ref) is not None:
                continue
            try:
                self.store.resolve(part.ref, "tuned")
            except MissingArtifact as error:
                tuned = {artifact.name for artifact in self.store.list("tuned")}
                near = difflib.get_close_matches(part.ref, [*tuned, *PRESETS], n=2, cutoff=0.6)
                if not near:
                    return error
                said = [n if n in tuned else f"{shlex.quote(n)} (a preset)" for n in near]
                return MissingArtifact(
                    f"no tuned model and no preset is named {part.ref!r}",
                    f"did you mean {' or '.join(said)}?",
                )
        return None


def preset_named(ref: str) -> str | None:
    """The preset that a reference means: its name, or the name that its model gets."""
    return ref if ref in PRESETS else {slug(name): name for name in PRESETS}.get(ref)


def _no_photos() -> BadInput:
    return BadInput(
        "a base for photos is learnt from photos, and this store has none",
        "give --root DIR: a folder of some thousand photos of faces, or CelebA",
    )


def _is_drawn(data: Artifact) -> bool:
    return DOMAINS[data.config["domain"]].drawn if data.config.get("domain") in DOMAINS else False


def _newest(found: Sequence[Artifact]) -> Artifact | None:
    return max(found, key=lambda artifact: artifact.manifest.created, default=None)
