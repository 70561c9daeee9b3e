"""The artifact store: versioned, content-addressed folders that are complete or not there at all.

See ``docs/store.md`` for the layout and the promises.
"""

from dclip.store.files import atomic, write_atomic
from dclip.store.manifest import FORMAT, Artifact, FileEntry, Manifest
from dclip.store.refs import MAKERS, check_name, slug
from dclip.store.store import Draft, Planned, Store

__all__ = [
    "FORMAT",
    "MAKERS",
    "Artifact",
    "Draft",
    "FileEntry",
    "Manifest",
    "Planned",
    "Store",
    "atomic",
    "check_name",
    "slug",
    "write_atomic",
]
