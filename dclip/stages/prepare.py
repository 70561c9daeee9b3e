"""prepare: photos or rendered faces in, a data artifact out."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dclip.configs.prepare import DRAWN, PrepareConfig, parse_split
from dclip.context import Context
from dclip.data import celeba, filters
from dclip.data.arrays import ShardReader, ShardWriter
from dclip.data.images import Decoded, decode, save_png
from dclip.data.parallel import map_processes, map_threads
from dclip.data.paths import name_bytes, shown
from dclip.data.rendered import PAIRS, Rendered
from dclip.data.source import FileSource, Item, fingerprint
from dclip.data.sources import SOURCES
from dclip.data.table import SPLITS, ordered, write_csv
from dclip.errors import BadInput
from dclip.figures.panel import sheet
from dclip.photos.align import Aligner
from dclip.photos.frames import frame_named
from dclip.stages.revisions import REVISIONS
from dclip.store import Artifact, Journal, Staging, Store, slug

BLOCK = 64  # pictures between two entries in the journal, the most that a kill can lose
FACES_COUNT = 6000


def run(config: PrepareConfig, store: Store, context: Context = Context()) -> Artifact:
    """Make the data artifact that ``config`` describes, or find it.

    The pictures' content identifies the work: a changed folder is prepared anew, the same
    pictures in another place are up to date.

    Raises:
        BadInput: nothing to prepare, or with ``strict`` a picture that cannot be read.
    """
    pictures = _faces(config) if config.source == DRAWN else _photos(config, context)
    resolved = {
        "source": config.source,
        "domain": config.shows,
        "content": pictures.content,
        "size": config.side,
        "crop": pictures.crop,
        "frame": pictures.frame,
        **({"detector": pictures.detector} if pictures.detector else {}),
        "split": config.split,
        "limit": config.limit,
        "count": len(pictures.items) if config.source == DRAWN else None,
        "style": pictures.style,
    }
    count = len(pictures.items) + len(pictures.left_out)
    if config.strict and pictures.left_out:
        file, reason = next(iter(pictures.left_out.items()))
        raise BadInput(
            f"{len(pictures.left_out)} of {count} pictures cannot be read; "
            f"the first: {shown(file)}: {reason}",
            "replace or remove them, or leave --strict out",
        )

    def accept(artifact: Artifact) -> None:
        if config.strict and (skipped := artifact.metrics.get("skipped", 0)):
            raise BadInput(
                f"{skipped} pictures could not be read: see {artifact.path / 'skipped.csv'}",
                "replace or remove them, or leave --strict out",
            )

    artifact = store.build(
        stage="prepare",
        revision=REVISIONS["prepare"],
        kind="data",
        name=config.name or pictures.name,
        config=resolved,
        inputs={},
        seed=config.seed,
        context=context,
        make=lambda staging: _make(staging, pictures, config, context),
        estimate={
            "images": len(pictures.items),
            "bytes": len(pictures.items) * 3 * config.side**2,
        },
        accept=accept,
    )
    if skipped := artifact.metrics.get("skipped", 0):
        context.report.warn(
            f"{skipped} of {count} pictures could not be read and were left out: "
            f"see {artifact.path / 'skipped.csv'}"
        )
    return artifact


@dataclass(frozen=True)
class _Pictures:
    """What there is to prepare, whatever the source."""

    name: str
    place: str
    items: Sequence[Item]
    content: str
    crop: str | None
    style: str | None
    # Blocks of items to blocks of pictures or of what is wrong with each.
    load: Callable[[Iterator[Sequence[int]], int], Generator[_Block, None, None]]
    # The columns of what is known, and the rows of the chosen items, one after the other.
    known: Sequence[str]
    rows: Callable[[Sequence[int], int], Iterable[Mapping[str, str]]]
    # The name of an item's subject: items of one subject get the same split.
    subject: Callable[[int], str]
    # Pictures that are there and cannot be read here, with the reason.
    left_out: Mapping[str, str]
    # Where the pictures have the face, and what found it where they are aligned here.
    frame: str
    detector: str | None = None


@dataclass(frozen=True)
class _Block:
    """Pictures (n, 3, H, W) uint8 of consecutive items, less those that cannot be read."""

    pixels: NDArray[np.uint8]
    failures: Mapping[int, str]
    notes: tuple[tuple[str, str], ...] = ()  # what was done, and to which file


def _photos(config: PrepareConfig, context: Context) -> _Pictures:
    assert config.root is not None
    source: FileSource
    if config.download:
        source = _downloaded(config, context)
    else:
        row = SOURCES[config.source]
        given = {name: getattr(config, name) for name in row.options}
        given = {name: value for name, value in given.items() if value is not None}
        if row.fetches:
            given["fetch"] = not context.dry_run
        source = row.load()(config.root, config.limit, context.report, **given)
    for note in source.notes:
        context.report.note(note)
    crop = config.crop or source.crop
    frame = config.frame or source.frame
    if source.frame == "ffhq" and crop != "center":
        frame = "center"  # CelebA-HQ cropped further is no frame that is known
    size = config.side
    aligner: Aligner | None = None
    if config.align:
        frame = config.frame or "ffhq"
        crop = config.crop or ("face" if frame == "celeba" else "center")
        aligner = Aligner(frame_named(frame, crop), size, config.max_faces)
    items: Sequence[Item] = source.items
    known = source.columns
    photos = [item.id for item in items]  # of each item: faces of one photo get the same split
    faces = [0] * len(items)
    if aligner is not None and config.max_faces != 1:
        found = _faces_in(source, aligner, context)
        places = [(i, face) for i, count in enumerate(found) for face in range(count)]
        faces = [face for _, face in places]
        photos = [photos[i] for i, _ in places]
        known = {name: [column[i] for i, _ in places] for name, column in known.items()}
        items = [
            items[i] if found[i] == 1 else replace(items[i], id=f"{items[i].id}~face{face + 1}")
            for i, face in places
        ]
    if config.style == PAIRS:
        known = filters.columns_of_pairs([item.id for item in items], known)
        twice = [item for item in items for _ in range(2)]
        items = [
            item if style == "photo" else replace(item, id=f"{item.id}~{style}")
            for item, style in zip(twice, known["style"], strict=True)
        ]
        faces = [face for face in faces for _ in range(2)]
        photos = [photo for photo in photos for _ in range(2)]

    def one_block(numbers: Sequence[int]) -> _Block:
        pixels, failures, notes = [], {}, list[tuple[str, str]]()
        decoded: tuple[str, Sequence[Decoded]] | None = None  # the squares of a file
        for number in numbers:
            item, face = items[number], faces[number]
            try:
                # The faces of a photo and the two of a pair are one file, and follow each other.
                if decoded is None or decoded[0] != item.file:
                    data = source.read(item)
                    if aligner is not None:
                        squares = aligner(data, item.file)
                    else:
                        squares = [decode(data, size=size, crop=crop, name=item.file)]
                    decoded = item.file, squares
            except BadInput as error:
                failures[number] = error.message
                continue
            read = decoded[1][face]
            shown = read.pixels
            if config.style == PAIRS and (style := known["style"][number]) != "photo":
                shown = filters.filtered(shown, style)
            else:
                notes += [(note, item.file) for note in read.notes]
            pixels.append(shown.transpose(2, 0, 1))
        empty = np.empty((0, 3, size, size), dtype=np.uint8)
        return _Block(np.stack(pixels) if pixels else empty, failures, tuple(notes))

    return _Pictures(
        name=slug(source.name if config.style is None else f"{source.name}-{config.style}"),
        place=str(source.place.resolve()),
        items=items,
        content=fingerprint(items, known, source.left_out),
        crop=crop,
        style=config.style,
        load=lambda blocks, workers: map_threads(one_block, blocks, workers),
        known=tuple(known),
        rows=lambda numbers, workers: (
            {name: column[number] for name, column in known.items()} for number in numbers
        ),
        subject=lambda number: photos[number],
        left_out=source.left_out,
        frame=frame,
        detector=aligner.version if aligner else None,
    )


def _faces_in(source: FileSource, aligner: Aligner, context: Context) -> list[int]:
    """How many squares each photo gives; 1 where it gives none, whose reason is told later."""

    def one_block(numbers: Sequence[int]) -> list[int]:
        return [squares(source.items[number]) for number in numbers]

    def squares(item: Item) -> int:
        try:
            return aligner.count(source.read(item), item.file)
        except BadInput:
            return 1

    total = len(source.items)
    blocks = (range(first, min(first + BLOCK, total)) for first in range(0, total, BLOCK))
    found: list[int] = []
    with (
        context.report.task("finding faces", total, unit="img") as task,
        closing(map_threads(one_block, blocks, context.workers)) as counted,
    ):
        for counts in counted:
            found += counts
            task.advance(len(counts), faces=sum(found))
    several = sum(count > 1 for count in found)
    if several:
        context.report.note(
            f"{several} photos have several faces: each is a sample of its own, as"
            " PHOTO~face1, PHOTO~face2 from the left"
        )
    return found


def _downloaded(config: PrepareConfig, context: Context) -> celeba.CelebA:
    """CelebA, fetched first where it is not there."""
    assert config.root is not None
    try:
        return celeba.open_celeba(config.root, config.limit, context.report)
    except BadInput:
        if context.dry_run:
            raise BadInput(
                f"CelebA is not in {config.root} yet, so there is nothing to plan with",
                "leave --dry-run out, and 1.4 GB are fetched into it",
            ) from None
        context.report.note(f"fetching CelebA into {config.root}")
        celeba.download(config.root)
    return celeba.open_celeba(config.root, config.limit, context.report)


def _faces(config: PrepareConfig) -> _Pictures:
    count, style = config.count or FACES_COUNT, config.style or "photo"
    source = Rendered(count, config.seed, style, config.side)
    items = source.items()

    def load(blocks: Iterator[Sequence[int]], workers: int) -> Generator[_Block, None, None]:
        # Spawning a process costs as much as drawing a few hundred faces.
        workers = min(workers, 1 + count // 500)
        for pixels in map_processes(source.draw, blocks, workers):
            yield _Block(pixels, {})

    def rows(numbers: Sequence[int], workers: int) -> Iterator[Mapping[str, str]]:
        workers = min(workers, 1 + count // 10_000)
        parts = (numbers[first : first + 500] for first in range(0, len(numbers), 500))
        with closing(map_processes(source.describe, parts, workers)) as described:
            for part in described:
                yield from part

    return _Pictures(
        name="faces" if style == "photo" else f"faces-{slug(style)}",
        place="rendered",
        items=items,
        content=source.fingerprint(),
        crop=None,
        style=style,
        load=load,
        known=tuple(source.describe([0])[0]),
        rows=rows,
        subject=lambda number: source.subject(number) if style == PAIRS else items[number].id,
        left_out={},
        frame="drawn",
    )


def _make(
    staging: Staging, pictures: _Pictures, config: PrepareConfig, context: Context
) -> dict[str, Any]:
    (staging.path / "logs").mkdir(parents=True, exist_ok=True)
    (staging.path / "logs" / "source.json").write_text(
        json.dumps({"place": pictures.place}) + "\n", encoding="utf-8"
    )
    failures = _write_pixels(staging, pictures, config, context)
    # A range where nothing failed: of millions of drawn faces no list is kept.
    kept: Sequence[int] = range(len(pictures.items))
    if failures:
        kept = [number for number in kept if number not in failures]
    splits = _splits(config, pictures, kept)
    names = ordered(["index", "id", "split", "file", *pictures.known])
    rows = _rows(pictures, kept, splits, context)
    write_csv(staging.path / "samples.csv", names, ([row[name] for name in names] for row in rows))
    skipped = [(pictures.items[number].file, failures[number]) for number in sorted(failures)]
    skipped += pictures.left_out.items()
    write_csv(staging.path / "skipped.csv", ["file", "reason"], skipped)
    images = ShardReader(staging.path / "images.zarr")
    # Not evenly spaced: styles come in turns, and the sheet would show some of them only.
    shown = np.sort(np.random.default_rng(config.seed).permutation(len(images))[:64])
    preview = sheet(list(images[shown]), columns=8, cell=min(config.side, 128))
    save_png(staging.path / "preview.png", preview)
    counts = {name: int((splits == number).sum()) for number, name in enumerate(SPLITS)}
    return {"images": len(kept), "skipped": len(skipped), **counts}


def _write_pixels(
    staging: Staging, pictures: _Pictures, config: PrepareConfig, context: Context
) -> dict[int, str]:
    """Decode everything into ``images.zarr``; returns what could not be read, by item number."""
    total, size = len(pictures.items), config.side
    with ShardWriter(
        staging.path / "images.zarr", (3, size, size), np.uint8, total=total
    ) as writer:
        journal = Journal(
            staging.scratch / "blocks.jsonl", lambda entry: entry["images"], at_most=writer.done
        )
        writer.rewind(journal.done)
        failures: dict[int, str] = dict(journal.column("failures"))
        notes: Counter[str] = Counter()
        first_of: dict[str, str] = {}
        done = journal.done + len(failures)
        blocks = (range(first, min(first + BLOCK, total)) for first in range(done, total, BLOCK))
        with ExitStack() as stack:
            task = stack.enter_context(context.report.task("prepare", total, unit="img", done=done))
            loaded = stack.enter_context(closing(pictures.load(blocks, context.workers)))
            for block in loaded:
                if block.failures and config.strict:
                    journal.drop()
                    raise BadInput(
                        next(iter(block.failures.values())),
                        "replace or remove it, or leave --strict out",
                    )
                writer.append(block.pixels)
                failures.update(block.failures)
                advanced = len(block.pixels) + len(block.failures)
                done += advanced
                journal.add(images=len(block.pixels), failures=list(block.failures.items()))
                for note, file in block.notes:
                    notes[note] += 1
                    first_of.setdefault(note, file)
                task.advance(advanced, skipped=len(failures))
        for note, count in notes.items():
            some = f" and {count - 1} more" if count > 1 else ""
            context.report.note(f"{shown(first_of[note])}{some}: {note}")
        if not writer.done:
            journal.drop()
            reason = failures[min(failures)]
            raise BadInput(
                f"none of the {total} pictures can be read; the first: {reason}",
                "give the folder of the pictures themselves",
            )
        writer.finish()
    return failures


def _rows(
    pictures: _Pictures, kept: Sequence[int], splits: NDArray[np.int8], context: Context
) -> Iterator[Mapping[str, Any]]:
    """The rows of ``samples.csv`` for the kept items, one at a time."""
    known = pictures.rows(kept, context.workers)
    for place, (number, facts) in enumerate(zip(kept, known, strict=True)):
        item = pictures.items[number]
        own = {"index": place, "id": item.id, "split": SPLITS[splits[place]], "file": item.file}
        yield {**facts, **own}


def _splits(config: PrepareConfig, pictures: _Pictures, kept: Sequence[int]) -> NDArray[np.int8]:
    """The split of each kept item as its place in :data:`dclip.data.table.SPLITS`.

    Decided by the seed and the items' ids, not by their order.
    """
    splits = np.zeros(len(kept), np.int8)
    if config.split == "official":
        named = [row.get("partition", "") for row in pictures.rows(kept, 1)]
        if without := named.count(""):
            raise BadInput(
                f"{without} of {len(kept)} pictures have no row in list_eval_partition",
                "put the list beside the pictures, or use --split 90/10",
            )
        splits[:] = [SPLITS.index(name) for name in named]
        return splits
    shares = parse_split(config.split)

    def key(number: int) -> int:
        # Two drawings of one face get the same split, so that no test is on a training face.
        subject = name_bytes(f"{config.seed}:{pictures.subject(number)}")
        digest = hashlib.blake2b(subject).digest()
        return int.from_bytes(digest[:8])

    keys = np.fromiter((key(number) for number in kept), np.uint64, len(kept))
    order = np.argsort(keys, kind="stable")
    first = 0
    for number, share in enumerate(shares[1:], 1):
        # At least one picture in each split where there are enough.
        last = first + round(len(kept) * share / 100)
        if share and last == first and len(kept) > len(shares):
            last += 1
        while first < last < len(order) and keys[order[last]] == keys[order[last - 1]]:
            last += 1
        splits[order[first:last]] = number
        first = last
    return splits
