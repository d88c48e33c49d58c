"""A file that grows is followed through everything that logrotate, editors and restarts do to it."""

import os
from pathlib import Path

from bedside.agent.formats.tables.lines import MAX_LINE_BYTES, Lines
from bedside.agent.sources.csv.follow import FilePlace, Follower, What


class Reader:
    """Reads all that there is."""

    def __init__(self, path: Path, place: FilePlace | None = None, offset: int = 0, head_lines: int = 1) -> None:
        self.follower = Follower(path, place, head_lines)
        self.lines = Lines(offset)
        self.got: list[bytes | None] = []
        self.begun = 0

    def read(self, looks: int = 8) -> list[bytes | None]:
        """Look until nothing has come for some looks."""
        self.got = []
        quiet = 0
        while quiet < looks:
            piece = self.follower.read()
            quiet = quiet + 1 if piece.what in {What.QUIET, What.ABSENT} else 0
            if piece.what is What.BEGUN:
                self.begun += 1
                self.lines = Lines(piece.offset)
            cut = self.lines.finish() if piece.what is What.ENDED else self.lines.feed(piece.data)
            self.got += [line.data for line in cut]
        return self.got

    def place(self) -> FilePlace | None:
        return self.follower.place_at(self.lines.offset)


def append(path: Path, text: bytes) -> None:
    with path.open("ab") as file:
        file.write(text)


def test_lines_come_once_they_are_whole(tmp_path) -> None:
    path = tmp_path / "v.csv"
    reader = Reader(path)
    assert reader.read() == []
    append(path, b"tim")
    assert reader.read() == []  # half a header
    append(path, b"e,hr\n1,6")
    assert reader.read() == []
    append(path, b"0\r\n2,61\n3")
    assert reader.read() == [b"1,60", b"2,61"]
    assert reader.begun == 1


def test_a_restart_goes_on_behind_the_last_whole_line(tmp_path) -> None:
    path = tmp_path / "v.csv"
    append(path, b"time,hr\n1,60\n2,6")
    reader = Reader(path)
    reader.read()
    place = reader.place()
    assert place is not None
    append(path, b"1\n3,62\n")
    assert Reader(path, place).read() == [b"2,61", b"3,62"]


def test_a_share_that_is_mounted_late_goes_on_where_it_was(tmp_path) -> None:
    share = tmp_path / "share"
    share.mkdir()
    append(share / "v.csv", b"time,hr\n1,60\n")
    reader = Reader(share / "v.csv")
    reader.read()
    place = reader.place()
    share.rename(tmp_path / "away")
    again = Reader(share / "v.csv", place)
    assert again.read() == []
    (tmp_path / "away").rename(share)
    append(share / "v.csv", b"2,61\n")
    assert again.read() == [b"2,61"]


def test_a_renamed_file_is_read_to_its_end_and_its_last_line_counts_then(tmp_path) -> None:
    path = tmp_path / "v.csv"
    append(path, b"time,hr\n1,60\n")
    reader = Reader(path)
    assert reader.read() == [b"1,60"]
    path.rename(tmp_path / "v.csv.1")
    append(tmp_path / "v.csv.1", b"2,61\n3,62")  # its writer has not noticed yet
    append(path, b"time,hr\n4,63\n")
    assert reader.read() == [b"2,61", b"3,62", b"4,63"]


def test_a_writer_that_lets_go_of_a_renamed_file_late_is_heard(tmp_path) -> None:
    path = tmp_path / "v.csv"
    append(path, b"time,hr\n1,60\n")
    reader = Reader(path)
    reader.read()
    path.rename(tmp_path / "v.csv.1")
    append(path, b"time,hr\n")
    assert reader.read(looks=1) == []
    append(tmp_path / "v.csv.1", b"2,61\n")
    append(path, b"3,62\n")
    assert reader.read() == [b"2,61", b"3,62"]


def test_after_a_restart_all_renamed_files_are_read_from_where_it_stopped(tmp_path) -> None:
    path = tmp_path / "v.csv"
    append(path, b"time,hr\n1,60\n")
    reader = Reader(path)
    reader.read()
    place = reader.place()
    append(path, b"2,61\n")
    path.rename(tmp_path / "v.csv.2")
    append(tmp_path / "v.csv.1", b"time,hr\n3,62\n")
    append(path, b"time,hr\n4,63\n")
    append(tmp_path / "v.csv.bak", b"time,hr\n9,99\n")
    for age, name in enumerate(("v.csv", "v.csv.1", "v.csv.2")):
        os.utime(tmp_path / name, (1_700_000_000 - age, 1_700_000_000 - age))
    again = Reader(path, place)
    assert again.read() == [b"2,61", b"3,62", b"4,63"]
    assert not again.follower.lost


def test_a_file_that_was_emptied_or_written_anew_is_read_from_its_beginning(tmp_path) -> None:
    path = tmp_path / "v.csv"
    append(path, b"time,hr\n1,60\n2,61\n")
    reader = Reader(path)
    reader.read()
    with path.open("r+b") as file:  # as copytruncate does
        file.truncate()
    assert reader.read() == []
    append(path, b"time,hr\n3,62\n")
    assert reader.read() == [b"3,62"]
    with path.open("r+b") as file:  # emptied and longer than before at the next look
        file.truncate()
        file.write(b"time,hr\n4,63\n5,64\n")
    assert reader.read() == [b"4,63", b"5,64"]


def test_another_file_under_an_old_inode_is_not_taken_for_the_old_one(tmp_path) -> None:
    path = tmp_path / "v.csv"
    append(path, b"time,hr\n1,60\n")
    reader = Reader(path)
    reader.read()
    place = reader.place()
    with path.open("r+b") as file:
        file.truncate()
        file.write(b"time,hr\n7,70\n8,71\n")
    again = Reader(path, place)
    assert again.read() == [b"7,70", b"8,71"]
    assert again.follower.lost


def test_a_line_without_end_costs_no_memory_and_is_told_of(tmp_path) -> None:
    path = tmp_path / "v.csv"
    append(path, b"time,hr\n1,60\n" + b"x" * (3 * MAX_LINE_BYTES))
    reader = Reader(path)
    assert reader.read() == [b"1,60"]
    assert len(reader.lines._rest) <= MAX_LINE_BYTES
    append(path, b"\n2,61\n")
    assert reader.read() == [None, b"2,61"]
    assert reader.lines.offset == path.stat().st_size
