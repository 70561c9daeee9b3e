"""The artifact store: versioned, content-addressed folders that are complete or not there at all.

See ``docs/store.md`` for the layout and the promises.
"""

from dclip.store.artifact import Artifact
from dclip.store.build import Planned
from dclip.store.files import atomic, write_atomic
from dclip.store.ids import FORMAT
from dclip.store.journal import Journal
from dclip.store.lineage import Lineage
from dclip.store.manifest import FileEntry, Manifest
from dclip.store.names import check_name, slug
from dclip.store.paths import VersionPath
from dclip.store.refs import MAKERS
from dclip.store.staging import Staging
from dclip.store.store import Broken, Store
from dclip.store.transfer import export, export_with_base, import_artifact, slim
from dclip.store.upkeep import Collected, Garbage, Removed
from dclip.store.verify import Problem, Verification

__all__ = [
    "FORMAT",
    "MAKERS",
    "Artifact",
    "Broken",
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
    "VersionPath",
    "atomic",
    "check_name",
    "export",
    "export_with_base",
    "import_artifact",
    "slim",
    "slug",
    "write_atomic",
]
