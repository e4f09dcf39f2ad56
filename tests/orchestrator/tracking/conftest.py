import pytest
from track_records import make_record, make_tables


@pytest.fixture
def record(tmp_path):
    return make_record(tmp_path)


@pytest.fixture
def tables():
    return make_tables()
