"""Parses the URIs of object stores, and refuses every URI that contains a secret."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from tasks.errors import InputError

_SECRET_WORDS = ("password", "passwd", "pwd", "secret", "token", "credential", "key", "signature")
_PARAMETER = re.compile(r"[?&;]([^=&;?#\s]+)=")
_OBJECT_URI = re.compile(r"(?i)(s3|gs)://(.*)", re.DOTALL)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]*[a-z0-9]")
_ODD = re.compile(r"[\s\\?#%*\x00-\x1f\x7f]")


def has_secret_parameter(text: str) -> bool:
    """Return whether a URI has a query parameter that is named like a secret: `?access_token=`, `&X-Amz-Signature=`, `?sig=`.

    This check applies to the store, the tracking server and every other URI of a config.
    """
    names = [unquote(name).lower() for name in _PARAMETER.findall(text)]
    return any(name == "sig" or any(word in name for word in _SECRET_WORDS) for name in names)


def refuse_password(uri: str, where: object) -> None:
    """Check that `uri` contains no password or token. Raises InputError, which does not repeat the secret."""
    if "://" not in uri:
        return
    try:
        secret = urlsplit(uri).password
    except ValueError:
        secret = None
    if secret is not None or has_secret_parameter(uri) or re.search(r"://[^/@\s]*:[^/@\s]+@", uri):
        raise InputError(where, "this URI carries a password; leave it out and give it through the environment")


def is_object_uri(text: object) -> bool:
    """Return whether `text` is the URI of an object store: s3://... or gs://..."""
    return isinstance(text, str) and _OBJECT_URI.fullmatch(text) is not None


def object_uri(uri: str, where: object) -> str:
    """Return `scheme://bucket[/prefix]` with a lower-case scheme and no slash at the end. Raises InputError."""
    refuse_password(uri, where)
    match = _OBJECT_URI.fullmatch(uri)
    allowed = "allowed: s3://bucket/prefix or gs://bucket/prefix"
    if match is None or "@" in uri:  # the part before an @ may be a secret, so the URI is not repeated
        raise InputError(where, f"the URI names no bucket, or contains an @; {allowed}")
    bucket, _, prefix = match[2].rstrip("/").partition("/")
    if _BUCKET.fullmatch(bucket) is None:
        raise InputError(where, f"{uri!r}: {bucket!r} is not a valid bucket name; {allowed}")
    if prefix and (_ODD.search(prefix) or any(part in ("", ".", "..") for part in prefix.split("/"))):
        raise InputError(
            where, f"{uri!r}: a prefix must not have empty, '.' or '..' parts, blanks or any of \\?#%*; {allowed}"
        )
    return f"{match[1].lower()}://{bucket}" + (f"/{prefix}" if prefix else "")


def split_object_uri(uri: str) -> tuple[str, str, str]:
    """Split a URI that `object_uri` returned into scheme, bucket and prefix."""
    scheme, _, rest = uri.partition("://")
    bucket, _, prefix = rest.partition("/")
    return scheme, bucket, prefix


def parent_uri(uri: str, where: object) -> tuple[str, str]:
    """Split the URI of a run directory in an object store into the store's URI and the run's name. Raises InputError."""
    scheme, bucket, prefix = split_object_uri(object_uri(uri, where))
    above, _, name = prefix.rpartition("/")
    if not name:
        raise InputError(
            where, "this URI names a bucket; allowed: the URI of a run directory, <output>/<name>-<16 hex>"
        )
    return f"{scheme}://{bucket}" + (f"/{above}" if above else ""), name
