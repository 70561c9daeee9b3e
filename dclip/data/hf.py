"""A data set of the Hugging Face hub: its parquet files or tars, fetched and read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from dclip import hub
from dclip.context import Reporter, Silent
from dclip.data.packed import Packed
from dclip.data.parquet import check_pyarrow, open_parquet
from dclip.data.paths import shown
from dclip.data.webdataset import open_webdataset
from dclip.errors import BadInput

CONVERTED = "refs/convert/parquet"
"""The branch on which the hub keeps a data set as parquet, ``SUBSET/SPLIT/0000.parquet``."""

_SILENT = Silent()
_SHARD = re.compile(r"[-_.]?\d*(-of-\d+)?$")
_SPLITS = {"validation": "validation", "valid": "validation", "val": "validation",
           "dev": "validation", "train": "train", "training": "train",
           "test": "test", "testing": "test", "eval": "test"}  # fmt: skip

Parts = Mapping[tuple[str, str], Sequence[str]]


def open_hf(
    root: Path | str,
    limit: int | None = None,
    report: Reporter = _SILENT,
    *,
    subset: str | None = None,
    part: str | None = None,
    column: str | None = None,
    caption: str | None = None,
    fetch: bool = True,
) -> Packed:
    """The pictures of one split of a data set; what the hub's cache has is not fetched again.

    Read are the parquet files of the repository, else its tars, else the parquet files that the
    hub makes of other forms. Of parquet only as many shards are fetched as ``limit`` needs.

    Args:
        root: ``ORG/NAME``, or ``ORG/NAME@REVISION``.
        limit: only the first so many pictures.
        report: shown what is fetched.
        subset: which of several subsets (configs): else the only one, or ``default``.
        part: which of its splits: else ``train``, or the only one.
        column, caption: as for :func:`dclip.data.parquet.open_parquet`.
        fetch: whether files that are not on this machine are fetched.

    Raises:
        BadInput: no such data set, subset, split or column; several, of which none is named; access
            is not granted; it is not here and cannot, or shall not, be fetched; or no pictures.
    """
    repo, _, at = str(root).partition("@")
    revision, parts, notes = _find(repo, at or None)
    files, chosen = _choose(repo, parts, subset, part)
    called = PurePosixPath(repo).name
    if files[0].endswith(".tar"):
        if column is not None:
            raise BadInput(f"{repo} is made of tars, which have no --column", "leave it out")
        folder = _fetched(repo, files, revision, report, fetch)
        paths = [folder / file for file in files]
        found = open_webdataset(folder, limit, report, caption=caption, shards=paths)
    else:
        check_pyarrow()
        paths = _shards(repo, files, revision, limit, report, fetch)
        found = open_parquet(
            paths[0].parent, limit, report, column=column, caption=caption, shards=paths
        )
    return replace(found, called=called, notes=[*notes, *chosen, *found.notes])


def _find(repo: str, at: str | None) -> tuple[str, Parts, list[str]]:
    """The commit to read, and its files by subset and split."""
    commit, own = hub.names(repo, at, kind="dataset")
    notes = []
    if not hub.listed(repo, commit, kind="dataset"):
        notes.append(
            f"the hub cannot be asked what {repo} has: read are those of its files that are on"
            f" this machine, {len(own)}"
        )
    for suffix in (".parquet", ".tar"):
        files = [name for name in own if name.endswith(suffix)]
        if files:
            return commit, _parts(files), notes
    try:
        # The branch is made of the newest revision alone.
        commit, made = ("", []) if at else hub.names(repo, CONVERTED, kind="dataset")
    except hub.NoRevision:
        made = []
    files = [name for name in made if name.endswith(".parquet") and name.count("/") == 2]
    if not files:
        some = ", ".join(own[:4]) or "nothing"
        raise BadInput(
            f"{repo} holds no parquet files and no tars, only {shown(some)}",
            f"`hf download --repo-type dataset {repo} --local-dir DIR`, then"
            " `dclip prepare folder --root DIR`",
        )
    parts: dict[tuple[str, str], list[str]] = {}
    for name in files:
        config, split, _ = name.split("/")
        parts.setdefault((config, split.removeprefix("partial-")), []).append(name)
    if any("/partial-" in name for name in files):
        notes.append(f"the hub has converted only the first 5 GB of {repo}: the rest is left out")
    return commit, parts, notes


def _parts(files: Sequence[str]) -> Parts:
    """Files by subset (the folder, but for ``data`` and folders of splits) and split."""
    parts: dict[tuple[str, str], list[str]] = {}
    for file in files:
        *folders, name = PurePosixPath(file).with_suffix("").parts
        stem = _SHARD.sub("", name)
        split = _SPLITS.get(stem.lower(), stem if "-of-" in name else "")
        while not split and folders and folders[-1].lower() in _SPLITS:
            split = _SPLITS[folders.pop().lower()]
        subset = "/".join(folder for folder in folders if folder != "data") or "default"
        parts.setdefault((subset, split or "train"), []).append(file)
    return parts


def _choose(
    repo: str, parts: Parts, subset: str | None, part: str | None
) -> tuple[Sequence[str], list[str]]:
    subsets = sorted({name for name, _ in parts})
    one = _one(repo, subsets, subset, "subset", "default")
    splits = sorted(name for own, name in parts if own == one)
    split = _one(repo, splits, part, "part", "train")
    notes = []
    if others := [name for name in splits if name != split]:
        notes.append(f"the split {split} is taken, not {', '.join(others)}: --part names another")
    return parts[one, split], notes if part is None else []


def _one(repo: str, names: Sequence[str], asked: str | None, option: str, usual: str) -> str:
    what = {"subset": "subset", "part": "split"}[option]
    listed = shown(", ".join(names))
    if asked is not None and asked not in names:
        raise BadInput(f"{repo} has no {what} {asked!r}", f"give --{option} one of: {listed}")
    if asked is None and len(names) > 1 and usual not in names:
        raise BadInput(
            f"{repo} has several {what}s: {listed}", f"choose one: --{option} {names[0]}"
        )
    return asked or (names[0] if len(names) == 1 else usual)


def _fetched(repo: str, files: Sequence[str], revision: str, report: Reporter, fetch: bool) -> Path:
    """The folder that holds the files; without ``fetch`` only where they are here already."""
    if not fetch and not hub.is_here(repo, files, revision, kind="dataset"):
        raise BadInput(
            f"{repo} is not on this machine yet, so there is nothing to plan with",
            "leave --dry-run out, and what is missing of "
            f"{hub.described(repo, files, revision, kind='dataset')} is fetched",
        )
    return hub.fetch(repo, files, revision, report=report, kind="dataset")


def _shards(
    repo: str,
    files: Sequence[str],
    revision: str,
    limit: int | None,
    report: Reporter,
    fetch: bool,
) -> list[Path]:
    """The files on this machine; one after the other until there are ``limit`` rows."""
    if limit is None:
        folder = _fetched(repo, files, revision, report, fetch)
        return [folder / file for file in files]
    import pyarrow.parquet as pq

    paths: list[Path] = []
    rows = 0
    for file in files:
        path = _fetched(repo, [file], revision, report, fetch) / file
        paths.append(path)
        try:
            rows += pq.ParquetFile(path).metadata.num_rows
        except Exception:  # what is wrong with it is told when it is read
            break
        if rows >= limit:
            break
    return paths
