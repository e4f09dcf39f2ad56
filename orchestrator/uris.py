"""URIs that carry a password are refused: no secret may reach a spec, log or tag."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from tasks.errors import InputError

_SECRET_QUERY = re.compile(r"(?i)[?&;](password|passwd|pwd|secret|token|access_key|sig)=")


def refuse_password(uri: str, where: object) -> None:
    """Raise InputError, without repeating the secret, if `uri` carries a password or a token."""
    if "://" not in uri:
        return
    try:
        secret = urlsplit(uri).password
    except ValueError:
        secret = None
    if secret is not None or _SECRET_QUERY.search(uri) or re.search(r"://[^/@\s]*:[^/@\s]+@", uri):
        raise InputError(where, "this URI carries a password; leave it out and give it through the environment")
