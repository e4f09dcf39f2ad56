"""story.jsonl: what is appended is read again, a crash costs only the line it tore, and the file has an end."""

import json

from orchestrator.storage.story_file import SpecStory, Step, StoryFile, read_stories

TIME = "2025-01-01T00:00:00.000+00:00"
SUBMIT = Step(TIME, "submit", "waiting", "running", 1, "w1", "")
RESULT = Step(TIME, "result", "running", "done_unpublished", 1, "w1", "ok")
RETRY = Step(TIME, "retry", "running", "waiting", 1, "w1", 'error: "quoted"\nand é on a second line')


def test_steps_of_many_writes_come_back_in_order(tmp_path):
    path = tmp_path / "run" / "story.jsonl"
    file = StoryFile(path)
    file.append([SpecStory("aa1", [SUBMIT], seed=7, n_edited=50), SpecStory("ab2", [SUBMIT], seed=8, n_edited=0)])
    file.append([SpecStory("aa1", [RETRY, SUBMIT])])
    StoryFile(path).append([SpecStory("aa1", [RESULT])])
    assert read_stories(path, "aa") == {"aa1": SpecStory("aa1", [SUBMIT, RETRY, SUBMIT, RESULT], 7, 50)}
    assert set(read_stories(path, "a")) == {"aa1", "ab2"}
    assert [json.loads(line)["spec"] for line in path.read_text().splitlines()] == ["aa1", "ab2", "aa1", "aa1"]


def test_a_line_that_a_crash_tore_is_left_out_and_the_next_one_is_whole(tmp_path):
    path = tmp_path / "story.jsonl"
    StoryFile(path).append([SpecStory("a", [SUBMIT], 7, 50), SpecStory("a", [RETRY])])
    path.write_bytes(path.read_bytes()[:-20])
    assert read_stories(path, "a")["a"].steps == [SUBMIT]
    StoryFile(path).append([SpecStory("a", [RESULT])])
    assert read_stories(path, "a")["a"].steps == [SUBMIT, RESULT]


def test_lines_that_hold_something_else_are_left_out(tmp_path):
    path = tmp_path / "story.jsonl"
    StoryFile(path).append([SpecStory("a", [SUBMIT], 7, 50)])
    with path.open("ab") as file:
        file.write(b'{"spec":"a"}\n{"spec":"a","steps":[[1]]}\n{"spec":"a","steps":5}\n\xff\xfe\n{"spec":"a\xff\n[1]\n')
    assert read_stories(path, "a") == {"a": SpecStory("a", [SUBMIT], 7, 50)}


def test_no_file_holds_no_stories(tmp_path):
    assert read_stories(tmp_path / "story.jsonl", "") == {}


def test_beyond_half_of_the_limit_only_what_went_wrong_is_kept_and_beyond_the_limit_nothing(tmp_path):
    path = tmp_path / "story.jsonl"
    file = StoryFile(path, limit_bytes=2000)
    for _ in range(40):
        file.append([SpecStory("good", [SUBMIT, RESULT], 7, 50)])
    size = path.stat().st_size
    assert 1000 <= size < 1300
    for _ in range(40):
        file.append([SpecStory("bad", [RETRY]), SpecStory("good", [SUBMIT, RESULT], 7, 50)])
    assert 2000 <= path.stat().st_size < 2300
    found = read_stories(path, "")
    assert len(found["bad"].steps) > 3
    assert all(step == RETRY for step in found["bad"].steps)
    assert len(found["good"].steps) * 1.0 == 2 * sum(
        b'"good"' in line for line in path.read_bytes()[:size].splitlines()
    )
