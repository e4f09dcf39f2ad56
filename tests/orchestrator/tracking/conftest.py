import pytest
from track_records import make_record


@pytest.fixture
def record(tmp_path):
    return make_record(tmp_path)
