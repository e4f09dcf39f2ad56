"""One rule says which URIs carry a secret: configs, stores and tracking servers refuse the same query parameters."""

from __future__ import annotations

import pytest

from orchestrator.storage.open import open_blobs
from orchestrator.storage.uris import refuse_password
from orchestrator.tracking.record import check_uri
from tasks.errors import InputError

SECRET = "hunter2"
NAMES = ("access_token", "X-Amz-Signature", "sig", "api_key", "PASSWORD", "client%5Fsecret", "X-Amz-Credential")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("refuse", [refuse_password, open_blobs, check_uri], ids=["config", "store", "tracking"])
def test_a_parameter_named_like_a_secret_is_refused_and_not_repeated(name, refuse):
    with pytest.raises(InputError) as error:
        refuse(f"https://host/path?page=1&{name}={SECRET}", "config.yaml: somewhere")
    assert SECRET not in str(error.value)
    assert "allowed: a local path" not in str(error.value), "it is refused for the secret, not for its scheme"


@pytest.mark.parametrize("uri", ["https://host/path?page=1&design=blue", "text with ?token= and no URI"])
def test_other_texts_pass(uri):
    refuse_password(uri, "config.yaml: somewhere")
