import os
import threading
from pathlib import Path

import pytest

from orchestrator.experiment.run_dir import RunDir, existing
from orchestrator.storage.blobs import LocalBlobs
from orchestrator.storage.run_mirror import RunMirror
from orchestrator.storage.store import Store
from tasks.errors import InputError
from tests.s3_server import S3Server

RUN = "tiny-0123456789abcdef"


@pytest.fixture(scope="module")
def server():
    server = S3Server().start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server
    server.stop()


@pytest.fixture
def output(server):
    return f"s3://{server.make_bucket()}/campaigns"


@pytest.fixture
def on_machine(tmp_path, monkeypatch):
    """on_machine(name): this process now has the home of that machine."""

    def go(name):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))

    go("one")
    return go


def mirror_of(output):
    store = Store(output, "config.yaml: output")
    return store.mirror(store.run_path(RUN))


def write(mirror, **files):
    """Files by name, with _ for a dot and __ for a slash."""
    for name, text in files.items():
        path = mirror.local / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def files(folder):
    found = {
        path.relative_to(folder).as_posix(): path.read_text() for path in Path(folder).rglob("*") if path.is_file()
    }
    found.pop(".mirror.json", None)
    return found


def test_a_new_machine_sees_what_the_other_published(output, on_machine):
    first = mirror_of(output)
    write(first, provenance_json='{"numerics": 1}', results__curves="a,b", refit_log="begun\n")
    assert first.publish() == 3
    on_machine("two")
    second = mirror_of(output)
    assert second.local != first.local
    assert second.fetch() == 3
    assert files(second.local) == files(first.local)
    assert RunDir(second.local).provenance() == {"numerics": 1}


def test_only_what_changed_travels(server, output, on_machine):
    first = mirror_of(output)
    write(first, provenance_json="{}", refit_log="begun\n")
    assert first.publish() == 2
    before = server.n_requests
    assert first.publish() == 0
    assert server.n_requests == before
    write(first, refit_log="begun\nended\n")
    os.utime(first.local / "provenance.json")  # touched, and the same
    assert first.publish() == 1
    assert (first.fetch(), mirror_of(output).fetch()) == (0, 0)
    on_machine("two")
    second = mirror_of(output)
    assert (second.fetch(), second.fetch()) == (2, 0)
    write(second, provenance_json='{"resumed": true}')
    assert second.publish() == 1
    on_machine("one")
    assert first.fetch() == 1
    assert files(first.local) == {"provenance.json": '{"resumed": true}', "refit.log": "begun\nended\n"}


def test_what_a_killed_driver_had_not_published_is_kept_unless_another_went_on(output, on_machine):
    first = mirror_of(output)
    write(first, provenance_json="1", refit_log="1")
    first.publish()
    write(first, provenance_json="2", refit_log="2")
    assert first.fetch() == 0
    assert files(first.local) == {"provenance.json": "2", "refit.log": "2"}
    on_machine("two")
    second = mirror_of(output)
    second.fetch()
    write(second, provenance_json="3")
    second.publish()
    on_machine("one")
    assert first.fetch() == 1
    assert files(first.local) == {"provenance.json": "3", "refit.log": "2"}
    assert first.publish() == 1


def test_what_is_lost_here_comes_back_and_what_is_removed_there_goes(output, on_machine):
    mirror = mirror_of(output)
    write(mirror, provenance_json="1", refit_log="1", plan="1")
    mirror.publish()
    (mirror.local / "plan").unlink()
    assert mirror.publish() == 0
    assert mirror.fetch() == 1
    write(mirror, refit_log="2")
    for name in ("provenance.json", "refit.log"):
        mirror.blobs.delete(f"{RUN}/{name}")
    mirror.fetch()
    assert files(mirror.local) == {"plan": "1", "refit.log": "2"}  # the log is newer than what was removed
    assert mirror.publish() == 1


@pytest.mark.parametrize("state", ["", "{", "[]", '{"refit.log": 3}'])
def test_without_a_usable_state_everything_is_compared_again(output, on_machine, state):
    mirror = mirror_of(output)
    write(mirror, refit_log="1")
    mirror.publish()
    (mirror.local / ".mirror.json").write_text(state)
    assert mirror.publish() == 1
    (mirror.local / ".mirror.json").write_text(state)
    assert mirror.fetch() == 1
    assert mirror.fetch() == 0


def test_a_publish_that_fails_is_done_again(server, output, on_machine):
    mirror = mirror_of(output)
    write(mirror, provenance_json="1", refit_log="1")

    class Failing:
        def __getattr__(self, name):
            return getattr(mirror.blobs, name)

        def put(self, key, data):
            if key.endswith(".log"):
                raise OSError(5, "away")
            mirror.blobs.put(key, data)

    with pytest.raises(OSError, match="away"):
        RunMirror(Failing(), RUN, mirror.local).publish()
    mirror.publish()
    assert mirror.blobs.list(f"{RUN}/") == [f"{RUN}/provenance.json", f"{RUN}/refit.log"]
    assert mirror.fetch() == 0


def test_a_reader_beside_the_driver_takes_nothing_back(output, on_machine):
    mirror, done = mirror_of(output), threading.Event()
    write(mirror, refit_log="")
    mirror.publish()

    def look():
        while not done.is_set():
            mirror_of(output).fetch()

    reader = threading.Thread(target=look)
    reader.start()
    with open(mirror.local / "refit.log", "a") as log:
        for i in range(15):
            log.write(f"{i}\n")
            log.flush()
            mirror.publish()
    done.set()
    reader.join()
    text = "".join(f"{i}\n" for i in range(15))
    assert (mirror.local / "refit.log").read_text() == text
    assert mirror.blobs.get(f"{RUN}/refit.log").decode() == text


def test_a_log_that_is_open_goes_on_behind_what_another_machine_published(output, on_machine):
    """A driver that waits for the lease has its log open when it fetches what the one before it wrote."""
    first = mirror_of(output)
    write(first, refit_log="first: begun\n")
    first.publish()
    on_machine("two")
    second = mirror_of(output)
    second.fetch()
    with open(second.local / "refit.log", "a") as log:
        log.write("second: waiting\n")
        log.flush()
        write(first, refit_log="first: begun\nfirst: ended\n")
        first.publish()
        second.fetch()
        log.write("second: begun\n")
    second.publish()
    on_machine("three")
    third = mirror_of(output)
    third.fetch()
    assert files(third.local) == {"refit.log": "first: begun\nfirst: ended\nsecond: begun\n"}


def test_publishing_reads_only_what_was_touched(output, on_machine, monkeypatch):
    mirror, read = mirror_of(output), []
    write(mirror, scores__one_parquet="large", refit_log="1")
    mirror.publish()
    get = LocalBlobs.get
    monkeypatch.setattr(LocalBlobs, "get", lambda self, key: read.append(key) or get(self, key))
    assert mirror.publish() == 0
    assert read == [".mirror.json"]
    write(mirror, refit_log="12")
    assert mirror.publish() == 1
    assert read == [".mirror.json", ".mirror.json", "refit.log"]


def test_what_is_changed_right_after_it_was_fetched_is_sent(output, on_machine):
    first = mirror_of(output)
    write(first, refit_log="1")
    first.publish()
    on_machine("two")
    second = mirror_of(output)
    second.fetch()
    write(second, refit_log="2")
    assert (second.publish(), second.publish()) == (1, 0)


def test_half_written_files_stay_here(output, on_machine):
    mirror = mirror_of(output)
    write(mirror, refit_log="1")
    (mirror.local / ".report.html.7.partial").write_text("<html>")
    assert mirror.publish() == 1
    assert mirror.blobs.list(f"{RUN}/") == [f"{RUN}/refit.log"]


def test_several_threads_may_publish(output, on_machine):
    mirror = mirror_of(output)
    write(mirror, provenance_json="1")
    threads = [threading.Thread(target=mirror.publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for n in range(5):
        write(mirror, **{f"results__{n}": str(n)})
        mirror.publish()
    for thread in threads:
        thread.join()
    assert mirror.publish() == 0
    assert [mirror.blobs.get(f"{RUN}/results/{n}") for n in range(5)] == [str(n).encode() for n in range(5)]


def test_a_run_opens_by_its_uri(output, on_machine):
    mirror = mirror_of(output)
    write(mirror, config_yaml="name: tiny\n", provenance_json='{"store": "s3://another/store"}')
    mirror.publish()
    on_machine("two")
    run_dir = existing(f"{output}/{RUN}/")
    assert run_dir.path == mirror_of(output).local
    assert (run_dir.path / "config.yaml").read_text() == "name: tiny\n"
    assert run_dir.store("runs") == output  # where it was opened, wherever it was made
    assert existing(run_dir.path).store("runs") == "s3://another/store"


@pytest.mark.parametrize(
    ("rest", "problem"),
    [("/campaigns/none-0123", "no such run directory"), ("", "names a bucket"), ("//x", "empty"), ("?x=1", "bucket")],
)
def test_a_uri_without_a_run_is_refused(server, output, on_machine, tmp_path, rest, problem):
    with pytest.raises(InputError, match=problem):
        existing(output.removesuffix("/campaigns") + rest)
    assert not (tmp_path / "one").exists()


def test_a_uri_with_a_password_is_refused_and_not_repeated():
    for uri in ("s3://key:hunter2@bucket/runs/x-1", "s3://hunter2@bucket/x-1", "gs://bucket/x-1?token=hunter2"):
        with pytest.raises(InputError) as caught:
            existing(uri)
        assert "hunter2" not in str(caught.value)


def test_local_stores_and_folders_elsewhere_are_not_mirrored(output, on_machine, tmp_path):
    local = Store(str(tmp_path / "runs"), "output")
    assert (local.root, local.uri) == (tmp_path / "runs", str(tmp_path / "runs"))
    assert local.cache_dir == tmp_path / "runs" / "cache"
    for store, path in ((local, local.run_path(RUN)), (Store(output, "output"), tmp_path / "elsewhere" / RUN)):
        path.mkdir(parents=True)
        (path / "refit.log").write_text("1")
        mirror = store.mirror(path)
        assert (mirror.publish(), mirror.fetch()) == (0, 0)
        assert store.blobs.list(f"{RUN}/") == ([f"{RUN}/refit.log"] if store is local else [])
        assert [entry.name for entry in path.iterdir()] == ["refit.log"]


def test_a_store_elsewhere_has_a_work_folder_here(output, on_machine, tmp_path, monkeypatch):
    store, same = Store(output, "output"), Store(output.replace("s3", "S3", 1) + "/", "output")
    assert store.root.parent == tmp_path / "one" / "refit"
    assert (same.root, same.uri) == (store.root, store.uri)
    assert Store(output + "2", "output").root != store.root
    assert store.run_path(RUN).parent == store.cache_dir.parent == store.root
    assert not store.root.exists()
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Store(output, "output").root.parent == tmp_path / ".cache" / "refit"


def test_a_mirror_of_a_folder_works_the_same(tmp_path):
    blobs = LocalBlobs(tmp_path / "store")
    mirrors = [RunMirror(blobs, RUN, tmp_path / name) for name in ("one", "two")]
    write(mirrors[0], refit_log="1")
    assert (mirrors[0].publish(), mirrors[1].fetch(), mirrors[1].publish()) == (1, 1, 0)
    write(mirrors[1], refit_log="2")
    assert (mirrors[1].publish(), mirrors[0].fetch()) == (1, 1)
    assert files(mirrors[0].local) == {"refit.log": "2"}
