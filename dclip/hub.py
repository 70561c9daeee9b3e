"""Files of the Hugging Face hub: taken from its cache, else fetched, else one line that says why.

The hub's own settings hold: ``HF_HUB_OFFLINE``, ``HF_ENDPOINT``, ``HF_HOME``, ``HF_TOKEN``, and the
proxies that ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` name.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import re
import shutil
import socket
import threading
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from dclip.context import Reporter, Silent
from dclip.errors import BadInput, StoreError
from dclip.store import write_atomic

REACH_SECONDS = 5.0
"""How long a connection may take. The hub's client itself tries for half a minute and longer."""

Kind = Literal["model", "dataset"]
_CALLED = {"model": "model", "dataset": "data set"}

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]*")


class NoRevision(BadInput):
    """The repository is there, and has no such branch, tag or commit."""


def fetch(
    repo_id: str,
    files: Sequence[str],
    revision: str | None = None,
    *,
    optional: Sequence[str] = (),
    report: Reporter | None = None,
    kind: Kind = "model",
) -> Path:
    """The folder of the hub's cache that holds files of a repository.

    What the cache has is taken from there, without a question to the network, so that the same
    weights are used until the cache is emptied. The folder is named after the commit that the
    files are of: see :func:`revision_of`.

    Args:
        repo_id: ``"ORG/NAME"``.
        files: names or patterns (``"unet/*.safetensors"``), each of which must match a file.
        revision: branch, tag or commit; None is the main branch.
        optional: names or patterns that are fetched together with the others where they exist.
        report: shows what is fetched, and how far it is.
        kind: what the repository is of.

    Raises:
        BadInput: no such repository, revision or file; access is not granted; or the files are not
            in the cache and cannot be fetched: offline, or the hub or its proxy does not answer.
        StoreError: no space left, or the cache cannot be written.
    """
    check_name(repo_id, revision)
    cached = _cached(repo_id, files, revision, kind)
    if cached is not None:
        return cached
    _check_reach(repo_id, files, kind)
    report = report or Silent()
    with _explained(repo_id, files, revision, kind):
        sizes, commit = _listing(repo_id, revision, kind)
        chosen = _chosen(repo_id, files, optional, sizes)
        _check_space(repo_id, sum(sizes[file] for file in chosen))
        folder = _download(repo_id, chosen, revision, sizes, report, kind)
    if folder.name != commit:
        raise BadInput(
            f"{repo_id} changed on the hub while it was fetched", "run the same command again"
        )
    report.note(f"fetched {repo_id} at revision {commit}")
    return folder


def names(
    repo_id: str, revision: str | None = None, *, kind: Kind = "model"
) -> tuple[str, list[str]]:
    """The commit that a revision of a repository is at, and the names of its files, sorted.

    Both are kept in the hub's cache beside the files, so that the network is asked once. What is
    fetched of the commit belongs together, whatever becomes of the branch meanwhile. Without a
    network and a kept list (see :func:`listed`) they are the files that the cache has, e.g. of
    ``hf download``.

    Args:
        repo_id, revision, kind: as for :func:`fetch`.

    Raises:
        NoRevision: the repository has no such revision.
        BadInput: no such repository; or the list is not here and cannot be fetched.
    """
    check_name(repo_id, revision)
    place = _place(repo_id, kind)
    commit = _commit(place, revision)
    with contextlib.suppress(OSError, ValueError):
        return commit, sorted(_kept(place, commit))
    try:
        _check_reach(repo_id, ["the list of files"], kind)
    except BadInput:
        if held := _held(place, commit):
            return commit, held
        raise
    with _explained(repo_id, ["the list of files"], revision, kind):
        sizes, commit = _listing(repo_id, revision, kind)
        listing, named = _listing_file(place, commit), _ref_file(place, revision)
        for file, text in ((listing, json.dumps(sizes)), (named, commit)):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(file, text.encode())
    return commit, sorted(sizes)


def described(repo_id: str, files: Sequence[str], commit: str, *, kind: Kind = "model") -> str:
    """How many files, of how many bytes, and the names of the first of them."""
    with contextlib.suppress(OSError, ValueError):
        sizes = _kept(_place(repo_id, kind), commit)
        total = _size(sum(sizes[name] for name in files if name in sizes))
        some = ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
        return f"{len(files)} files of {total} ({some})"
    return f"{len(files)} files"


def _kept(place: Path, commit: str) -> dict[str, int]:
    """The sizes in bytes of a commit's files, as :func:`names` kept them."""
    kept = json.loads(_listing_file(place, commit).read_text(encoding="utf-8"))
    return {str(name): int(size) for name, size in dict(kept).items()}


def listed(repo_id: str, commit: str, *, kind: Kind = "model") -> bool:
    """Whether the list of a commit's files is kept, so that :func:`names` has them all."""
    return _listing_file(_place(repo_id, kind), commit).is_file()


def is_here(repo_id: str, files: Sequence[str], revision: str, *, kind: Kind = "model") -> bool:
    """Whether :func:`fetch` would fetch nothing of these files."""
    return _cached(repo_id, files, revision, kind) is not None


def revision_of(folder: Path) -> str:
    """The commit that a folder of :func:`fetch` holds, 40 hexadecimal digits."""
    return folder.name


def check_name(repo_id: str, revision: str | None = None) -> None:
    """Raise BadInput for what cannot be the name of a repository or of a revision."""
    if not _NAME.fullmatch(repo_id) or ".." in repo_id or "--" in repo_id:
        raise BadInput(f"{repo_id!r} is no name on the hub", "it has the form ORG/NAME")
    if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise BadInput(
            f"{revision!r} is no revision of {repo_id}", "give a branch, a tag or a commit"
        )


def _place(repo_id: str, kind: Kind) -> Path:
    """The folder of the hub's cache for a repository."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"{kind}s--{repo_id.replace('/', '--')}"


def _listing_file(place: Path, commit: str) -> Path:
    return place / "listings" / f"{commit}.json"


def _ref_file(place: Path, revision: str | None) -> Path:
    """Where the hub's client keeps which commit a branch or tag is at."""
    return place / "refs" / (revision or "main")


def _commit(place: Path, revision: str | None) -> str:
    """The commit that the cache has for a revision; a commit is its own."""
    try:
        return _ref_file(place, revision).read_text().strip()
    except (OSError, ValueError):
        return revision or "main"


def _cached(repo_id: str, files: Sequence[str], revision: str | None, kind: Kind) -> Path | None:
    """The folder in the cache, where it has all of these files."""
    place = _place(repo_id, kind)
    commit = _commit(place, revision)
    held = _held(place, commit)
    if not held or not all(_matching(pattern, held) for pattern in files):
        return None
    return place / "snapshots" / commit


def _held(place: Path, commit: str) -> list[str]:
    """The names of a commit's files that the cache has, sorted."""
    folder = place / "snapshots" / commit
    if "/" in commit or not folder.is_dir():
        return []
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in files)


def _check_reach(repo_id: str, files: Sequence[str], kind: Kind) -> None:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise _not_here(repo_id, files, "HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE", kind)
    if problem := _unreachable(constants.ENDPOINT):
        raise _not_here(repo_id, files, problem, "run once with a connection", kind)


def _matching(pattern: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if fnmatchcase(name, pattern)]


def _unreachable(endpoint: str) -> str | None:
    """Why no connection to the hub can be made, or None; through the proxy where one is set.

    Only the proxy looks up the hub's address, so behind one it need not be known here.
    """
    address = urlsplit(endpoint)
    host, proxies = address.hostname or "", getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    what = host
    if proxy and not proxy_bypass(host):
        address = urlsplit(proxy if "//" in proxy else f"//{proxy}")
        what = f"the proxy {address.hostname}"
    try:
        port = address.port or {"http": 80, "socks5": 1080, "socks5h": 1080}.get(
            address.scheme, 443 if what == host else 80
        )
        socket.create_connection((address.hostname or "", port), timeout=REACH_SECONDS).close()
    except (OSError, ValueError) as error:
        return f"{what} cannot be reached: {getattr(error, 'strerror', None) or error}"
    return None


def _listing(repo_id: str, revision: str | None, kind: Kind) -> tuple[dict[str, int], str]:
    """Sizes of the repository's files in bytes, by name, and its commit."""
    from huggingface_hub import HfApi, constants

    api = HfApi(endpoint=constants.ENDPOINT)
    ask: Any = api.model_info if kind == "model" else api.dataset_info
    info = ask(repo_id, revision=revision, files_metadata=True, timeout=30)
    sizes = {each.rfilename: int(each.size or 0) for each in info.siblings or ()}
    return sizes, str(info.sha)


def _chosen(
    repo_id: str, files: Sequence[str], optional: Sequence[str], sizes: dict[str, int]
) -> list[str]:
    names = sorted(sizes)
    for pattern in files:
        if not _matching(pattern, names):
            some = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
            raise BadInput(
                f"{repo_id} has no file {pattern}", f"it has {some}" if some else "it is empty"
            )
    return sorted({name for each in (*files, *optional) for name in _matching(each, names)})


def _check_space(repo_id: str, needed: int) -> None:
    from huggingface_hub import constants

    place = Path(constants.HF_HUB_CACHE)
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise StoreError(
            f"{repo_id} takes {_size(needed)}, and {constants.HF_HUB_CACHE} has {_size(free)} left",
            "free some space, or set HF_HOME to a folder on another disk",
        )


def _size(number: int) -> str:
    if number < 1e6:
        return f"{number / 1e3:.1f} kB"
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def _download(
    repo_id: str,
    chosen: Sequence[str],
    revision: str | None,
    sizes: dict[str, int],
    report: Reporter,
    kind: Kind,
) -> Path:
    """Fetch the files; the folder that they are in."""
    from huggingface_hub import constants, hf_hub_download

    place = _place(repo_id, kind)
    total = sum(sizes[name] for name in chosen)
    shown = f"fetching {repo_id} ({_size(total)})"
    folder = place
    with _progress(place / "blobs", shown, total, report), _quiet():
        for name in chosen:
            path = hf_hub_download(
                repo_id, name, revision=revision, cache_dir=str(constants.HF_HUB_CACHE),
                endpoint=constants.ENDPOINT, repo_type=kind,
            )  # fmt: skip
            folder = Path(path)
            for _ in Path(name).parts:
                folder = folder.parent
    return folder


@contextlib.contextmanager
def _progress(blobs: Path, description: str, total: int, report: Reporter) -> Iterator[None]:
    """Show in MB how fast a folder grows: releases of the hub's client differ in what they tell."""
    megabytes = max(1, round(total / 1e6))
    done, complete = threading.Event(), threading.Event()

    def held() -> int:
        with contextlib.suppress(OSError):
            return sum(path.stat().st_size for path in blobs.iterdir())
        return 0

    with report.task(description, megabytes, unit="MB") as task:

        def watch() -> None:
            before, told = held(), 0
            while not done.wait(0.5):
                now = min(megabytes, round((held() - before) / 1e6))
                if now > told:
                    task.advance(now - told)
                    told = now
            if complete.is_set() and megabytes > told:
                task.advance(megabytes - told)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
            complete.set()
        finally:
            done.set()
            watcher.join()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the client's own bars and log lines off the terminal; what it raises is told."""
    from huggingface_hub import utils

    bar: Any = utils  # its type stubs leave these functions out
    logger = logging.getLogger("huggingface_hub")
    level, bars = logger.level, not bar.are_progress_bars_disabled()
    logger.setLevel(logging.CRITICAL)
    if bars:
        bar.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            bar.enable_progress_bars()


@contextlib.contextmanager
def _explained(
    repo_id: str, files: Sequence[str], revision: str | None, kind: Kind
) -> Iterator[None]:
    """Turn what the hub's client raises into one line each."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{'' if kind == 'model' else 'datasets/'}{repo_id}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise BadInput(
            f"access to {repo_id} has to be granted first",
            f"accept its terms on {page}, then log in with `hf auth login`",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise BadInput(
            f"{constants.ENDPOINT} has no {_CALLED[kind]} {repo_id}, or it is private",
            "check the name; for a private one log in with `hf auth login`",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise NoRevision(
            f"{repo_id} has no revision {revision!r}", f"its revisions are listed on {page}"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(
                f"no space left in {constants.HF_HUB_CACHE}, where {repo_id} is fetched to",
                "free some, or set HF_HOME to a folder on another disk, and run it again",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StoreError(
                f"{constants.HF_HUB_CACHE} cannot be written, where {repo_id} is fetched to",
                "set HF_HOME to a folder of yours",
            ) from error
        raise _not_here(repo_id, files, _reason(error), "try again later", kind) from error
    except (BadInput, StoreError, MemoryError):
        raise
    except Exception as error:  # the client's transport has had three libraries so far
        raise _not_here(repo_id, files, _reason(error), "try again later", kind) from error


def _not_here(
    repo_id: str, files: Sequence[str], reason: str, fix: str, kind: Kind = "model"
) -> BadInput:
    if kind == "dataset":
        fix += (
            f"; or on another machine `hf download --repo-type dataset {repo_id} --local-dir DIR`,"
            " and here `dclip prepare parquet --root DIR`"
        )
    return BadInput(
        f"{', '.join(files)} of {repo_id} is not on this machine and cannot be fetched ({reason})",
        f"{fix}; what was fetched once stays in the Hugging Face cache",
    )


def _reason(error: Any) -> str:
    """The first line of the innermost cause, which says what happened."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:160]
