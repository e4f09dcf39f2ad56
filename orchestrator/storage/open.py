"""Opens the store that the config key `output` names, and refuses invalid locations before anything is written."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from urllib.parse import unquote

from orchestrator.storage.blobs import STORE_FOLDERS, BlobStore, LocalBlobs
from orchestrator.storage.uris import has_secret_parameter, is_object_uri, object_uri
from tasks.errors import InputError

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://(.*)", re.DOTALL)


def open_blobs(uri: str, where: object) -> BlobStore:
    """Open the store at `uri`: a local path, file://, s3:// or gs://.

    A bucket is listed to check that it exists and grants access. Raises InputError that names `where` and never repeats
    a password.
    """
    match = _SCHEME.fullmatch(uri)
    scheme, rest = (match[1].lower(), match[2]) if match else ("", uri)
    authority = rest.split("/", 1)[0]
    if _carries_secret(scheme, authority, rest):
        raise InputError(where, "the URI carries a user or password; give credentials through the environment")
    if is_object_uri(uri):
        return _open_bucket(object_uri(uri, where), where)
    if scheme and scheme != "file":
        allowed = "allowed: a local path, file://, s3:// or gs://"
        raise InputError(where, f"{scheme}://...: this scheme is not supported; {allowed}")
    if scheme and authority not in ("", "localhost"):
        raise InputError(where, f"file://{authority}/...: names another host; allowed: file:///absolute/path")
    path = unquote(rest[len(authority) :]) if scheme else uri
    _check_folder(path, where)
    store = LocalBlobs(Path(path))
    for folder in STORE_FOLDERS:  # listing a file instead of a folder finds nothing, as if nothing had been trained
        found = store.root / folder
        if os.path.lexists(found) and not found.is_dir():
            raise InputError(where, f"{found} is not a folder; a store keeps its {folder} there")
    store.sweep()
    return store


def _open_bucket(uri: str, where: object) -> BlobStore:
    from orchestrator.storage.object_blobs import ObjectBlobs  # local stores do not need obstore

    store = ObjectBlobs(uri)
    store.check(where)
    return store


def _carries_secret(scheme: str, authority: str, rest: str) -> bool:
    if not scheme:
        return re.match(r"[^/@]+:[^/@]+@", rest) is not None
    return "@" in (authority if scheme == "file" else rest) or has_secret_parameter(rest)


def _check_folder(path: str, where: object) -> None:
    if not path.strip() or "\0" in path:
        raise InputError(where, f"{path!r} is not a path; allowed: a folder, which is made if need be")
    try:
        os.lstat(os.path.abspath(path))
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(where, f"{path[:80]!r}...: the path or one of its names is too long") from error
    nearest = Path(os.path.abspath(path))
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise InputError(where, f"{path!r}: {nearest} is a file; allowed: a folder, which is made if need be")
