import pytest

from orchestrator.tracking.record import check_uri, sqlite_path
from tasks.errors import InputError


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:///runs/mlflow.db",
        "sqlite:////abs/mlflow.db",
        "sqlite:///a%20b/m.db?timeout=5",
        "sqlite:///me@work/mlflow.db",
        "http://127.0.0.1:5000",
        "https://mlflow.example.org/prefix",
    ],
)
def test_stores_that_work_are_allowed(uri):
    assert check_uri(uri) is None


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "runs/mlflow",
        "/abs/mlruns",
        "file:///abs/mlruns",
        "file:mlruns",
        "mlruns.db",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///runs/",
        "sqlite:runs.db",
        "postgresql://host/db",
        "http://",
        "http://host:port",
        "http://host:99999",
        "databricks",
    ],
)
def test_other_stores_are_refused_naming_what_is_allowed(uri):
    with pytest.raises(InputError, match="allowed: sqlite:///") as caught:
        check_uri(uri, "config.yaml: tracking.uri")
    assert str(caught.value).startswith("config.yaml: tracking.uri: ")


@pytest.mark.parametrize(
    "uri",
    [
        "http://user:hunter2@host",
        "https://hunter2@host",
        "http://user:hun/hunter2@host",
        "postgresql://user:hunter2@host/db",
        "http://host/?password=hunter2",
        "http://host?a=1&api_key=hunter2",
        "sqlite:///a.db?Token=hunter2",
        "sqlite://user:hunter2@host/a.db",
        "user:hunter2@host",
        "http://user:[hunter2@host",
    ],
)
def test_a_uri_with_a_secret_is_refused_without_repeating_it(uri):
    with pytest.raises(InputError) as caught:
        check_uri(uri)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("sqlite:///runs/mlflow.db", "runs/mlflow.db"),
        ("sqlite:////abs/m.db?timeout=1", "/abs/m.db"),
        ("http://host", ""),
        ("sqlite://", ""),
    ],
)
def test_sqlite_path(uri, path):
    assert sqlite_path(uri) == path
