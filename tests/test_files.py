"""Files that may come from a stranger: bounded, whole, and never through a link or a device."""

import os
import socket
import threading
from pathlib import Path

import pytest

from nas import ExperimentError, NasValueError
from nas.files import (
    drafted,
    folder_in,
    is_file,
    named_by_user,
    open_file,
    open_to_append,
    own_folder,
    parse_json,
    read_bytes,
    read_end,
    read_json,
    read_text,
    write_whole,
)

READERS = {
    "open_file": lambda path: open_file(path).close(),
    "read_bytes": read_bytes,
    "read_text": read_text,
    "read_json": read_json,
    "read_end": lambda path: read_end(path, 10),
    "open_to_append": lambda path: os.close(open_to_append(path)),
}


def _link(place: Path, victim: Path) -> None:
    place.symlink_to(victim)


def _dangling(place: Path, victim: Path) -> None:
    place.symlink_to(victim.with_name("nothing"))


def _socket(place: Path, victim: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(place))


STRANGE = {
    "a link": _link,
    "a link to nothing": _dangling,
    "a folder": lambda place, victim: place.mkdir(),
    "a pipe": lambda place, victim: os.mkfifo(place),
    "a socket": _socket,
}


@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_ordinary_file_is_refused_at_once(reader, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (victim := tmp_path / "victim").write_text("{}")
    STRANGE[kind](place := tmp_path / "place", victim)
    answers = []

    def read():
        try:
            READERS[reader](place)
        except ExperimentError as error:
            answers.append(str(error))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    (text,) = answers
    assert str(place) in text
    assert kind.removesuffix(" to nothing") in text
    assert victim.read_text() == "{}"
    assert not (tmp_path / "nothing").exists()
    assert not is_file(place)


def test_a_device_is_refused_before_anything_is_read_from_it():
    for reader in ("open_file", "read_bytes", "read_text", "read_end"):
        with pytest.raises(ExperimentError, match="a device"):
            READERS[reader]("/dev/zero")


def test_what_the_user_names_himself_may_be_a_link(tmp_path):
    (tmp_path / "kept.json").write_text('{"a": 1}')
    (tmp_path / "link.json").symlink_to(tmp_path / "kept.json")
    assert read_json(tmp_path / "link.json", follow=True) == {"a": 1}


def test_a_file_is_read_up_to_a_limit(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 100)
    assert read_bytes(tmp_path / "file", most=100) == b"x" * 100
    with pytest.raises(NasValueError, match="at most 99 bytes"):
        read_bytes(tmp_path / "file", most=99)


def test_the_end_of_a_file_is_read_without_the_rest(tmp_path):
    with (tmp_path / "log").open("wb") as file:
        file.truncate(1 << 34)  # 16 GiB, of which the disk holds nothing
        file.seek(0, os.SEEK_END)
        file.write("ä€😀end".encode())
    assert read_end(tmp_path / "log", 6) == "ä€😀end"
    assert read_end(tmp_path / "log", 0) == ""
    (tmp_path / "short").write_bytes(b"\xff\xfeab")
    assert read_end(tmp_path / "short", 100) == "\ufffd\ufffdab"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"a": 1', "line 1"),
        (b'{"a": 1,\n "b": }', "line 2"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "digits"),
        (b'{"a":\n "\xff"}', "line 2"),
        (b"", "line 1"),
    ],
)
def test_json_that_cannot_be_read_names_file_and_line(content, reason, tmp_path):
    (tmp_path / "sample.json").write_bytes(content)
    with pytest.raises(NasValueError) as raised:
        read_json(tmp_path / "sample.json")
    assert reason in str(raised.value)
    assert "sample.json" in str(raised.value)
    assert len(str(raised.value)) < 1000


def test_a_line_of_json_is_named_by_its_number():
    with pytest.raises(NasValueError, match="line 7"):
        parse_json("{", where="journal.log", line=7)


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    write_whole(tmp_path / "file", "first")
    with pytest.raises(TypeError), drafted(tmp_path / "file") as draft:
        draft.writelines([b"half", None])
    assert read_text(tmp_path / "file") == "first"
    write_whole(tmp_path / "file", b"second", sync=True)
    assert read_text(tmp_path / "file") == "second"
    assert os.listdir(tmp_path) == ["file"]


def test_a_written_file_has_the_rights_of_any_other(tmp_path):
    (tmp_path / "other").write_text("")
    write_whole(tmp_path / "file", "")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_link_is_replaced_not_written_through(tmp_path):
    (victim := tmp_path / "victim").write_text("mine")
    (tmp_path / "file").symlink_to(victim)
    write_whole(tmp_path / "file", "ours")
    assert victim.read_text() == "mine"
    assert is_file(tmp_path / "file")


def test_folders_on_the_way_are_no_links(tmp_path):
    assert folder_in(tmp_path, "trials", "3") == tmp_path / "trials" / "3"
    assert not (tmp_path / "trials").exists()
    assert folder_in(tmp_path / "new", "trials", "3", make=True).is_dir()
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (tmp_path / "trials").symlink_to(elsewhere)
    for make in (False, True):
        with pytest.raises(ExperimentError, match="a link"):
            folder_in(tmp_path, "trials", "3", make=make)
    assert not os.listdir(elsewhere)
    (tmp_path / "linked").symlink_to(tmp_path / "new")  # The root is the user's own.
    assert folder_in(tmp_path / "linked", "trials").is_dir()
    (tmp_path / "plain").write_text("")
    with pytest.raises(ExperimentError, match="must be a folder, and it is a file"):
        folder_in(tmp_path, "plain", make=True)


def test_a_file_that_grows_or_says_no_size_is_read_within_the_limit():
    assert b"python" in read_bytes("/proc/self/cmdline")  # Its size is said to be 0.


def test_a_path_of_the_users_own_leads_where_his_link_does_and_to_no_device(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "file")
    assert named_by_user(tmp_path / "new") == tmp_path / "new"
    assert named_by_user(tmp_path / "link") == tmp_path / "there" / "file"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    for place in (tmp_path / "pipe", tmp_path / "null", "/dev/null"):
        with pytest.raises(ExperimentError, match=r"a (pipe|device)"):
            named_by_user(place)


def test_in_a_folder_of_our_own_any_library_can_write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (victim := elsewhere / "victim").write_text("mine")
    (deep := tmp_path / "root" / "supernet" / "logs").mkdir(parents=True)
    (deep / "kept").write_text("ours")
    (deep / "last").symlink_to("kept")
    (deep / "out").symlink_to(victim)
    (deep / "dangling").symlink_to(elsewhere / "nothing")
    (deep / "folder").symlink_to(elsewhere)
    (deep / "twice").symlink_to("out")
    os.mkfifo(deep / "pipe")
    _socket(deep.parent / "socket", victim)
    (deep.parent / f".file.{'0' * 16}.tmp").write_text("half")
    with pytest.warns(UserWarning, match="removed from it"):
        assert own_folder(tmp_path / "root", "supernet") == deep.parent
    left = {path.name for path in deep.rglob("*")}
    assert {"kept", "last"} <= left <= {"kept", "last", "twice"}
    assert os.listdir(deep.parent) == ["logs"]
    assert victim.read_text() == "mine"
    assert os.listdir(elsewhere) == ["victim"]
    assert own_folder(tmp_path / "new", "a", "b").is_dir()


def test_a_folder_of_our_own_is_no_link(tmp_path):
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (tmp_path / "supernet").symlink_to(elsewhere)
    with pytest.raises(ExperimentError, match="a link"):
        own_folder(tmp_path, "supernet")
