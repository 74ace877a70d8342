"""A plugin's manifest: read, set by structure, freed of its traps, put in order. Text in, data out.

Nothing here fetches or applies: `kitlib.stages` does.
"""

from __future__ import annotations

from kitlib.manifests.changes import Patch
from kitlib.manifests.images import Image, images_of
from kitlib.manifests.images import parse as parse_image
from kitlib.manifests.objects import Obj, dump, identity, is_large, namespaced, pod_spec, title
from kitlib.manifests.prepare import Prepared, prepare
from kitlib.manifests.reading import in_order, read
from kitlib.manifests.served import in_words, newest_fitting, unserved
from kitlib.manifests.upgrade import shown_manifest, upgrade

__all__ = [
    "Image",
    "Obj",
    "Patch",
    "Prepared",
    "dump",
    "identity",
    "images_of",
    "in_order",
    "in_words",
    "is_large",
    "namespaced",
    "newest_fitting",
    "parse_image",
    "pod_spec",
    "prepare",
    "read",
    "shown_manifest",
    "title",
    "unserved",
    "upgrade",
]
