"""The artifact store: versioned, content-addressed folders that are complete or not there at all.

See ``docs/store.md`` for the layout and the promises.
"""

from dclip.store.files import atomic, write_atomic
from dclip.store.journal import Journal
from dclip.store.lineage import Lineage
from dclip.store.manifest import FORMAT, Artifact, FileEntry, Manifest
from dclip.store.names import check_name, slug
from dclip.store.refs import MAKERS
from dclip.store.staging import Staging
from dclip.store.store import Planned, Store
from dclip.store.upkeep import Collected, Garbage, Removed, export, slim
from dclip.store.verify import Problem, Verification

__all__ = [
    "FORMAT",
    "MAKERS",
    "Artifact",
    "Collected",
    "FileEntry",
    "Garbage",
    "Journal",
    "Lineage",
    "Manifest",
    "Planned",
    "Problem",
    "Removed",
    "Staging",
    "Store",
    "Verification",
    "atomic",
    "check_name",
    "export",
    "slim",
    "slug",
    "write_atomic",
]
