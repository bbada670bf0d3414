"""Downloads that were cut: they go on where they stopped, or start afresh when they must."""

import os
import re
import signal
import subprocess
import sys

from tests.helpers.fetched import names, obtain, part_of, refused
from tests.helpers.servers import CONTENT, QUOTA, good, head, remote, says, start_of
from tests.helpers.waiting import wait_for


def test_a_connection_cut_in_the_middle_is_resumed(server, tmp_path):
    said: list[str] = []
    assert (
        obtain(
            remote(server.url("cut", good(until=250_000))), tmp_path, say=said.append
        ).read_bytes()
        == CONTENT
    )
    assert server.asked[0] == ("cut", None)
    assert server.asked[1][0] == "cut"
    assert re.fullmatch(r"bytes=\d+-", server.asked[1][1])
    assert any("the next attempt goes on from there" in text for text in said)


def test_another_process_goes_on_where_a_killed_one_stopped(server, tmp_path):
    file = remote(server.url("slow", good(pause=0.15)))
    code = f"""
from pathlib import Path
from cml_bench.data._source import RemoteFile, obtain_all
obtain_all((RemoteFile(*{tuple(file)!r}),), Path({str(tmp_path)!r}), {{}})
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.DEVNULL, env=os.environ
    )
    part = tmp_path / ".incoming" / "file.bin.part"
    wait_for(lambda: part.exists() and part.stat().st_size > 0)
    process.send_signal(signal.SIGKILL)
    process.wait()
    have = part.stat().st_size
    assert 0 < have < len(CONTENT)
    (part.parent / "tmpabcdefg").write_bytes(b"what pooch had in hand when it was killed")
    assert obtain(file, tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == ("slow", f"bytes={have}-")
    assert names(tmp_path) == ["file.bin"]


def test_a_server_that_ignores_range_starts_afresh(server, tmp_path):
    file = remote(server.url("stubborn", good(until=250_000, ranges=False)))
    assert obtain(file, tmp_path).read_bytes() == CONTENT
    assert server.asked[1][1] is not None, "the rest was asked for, the whole came"


def test_parts_of_two_files_are_noticed_and_fetched_afresh(server, tmp_path):
    part_of(tmp_path, b"?" * 1000)
    assert obtain(remote(server.url("a", good())), tmp_path).read_bytes() == CONTENT
    assert server.asked == [("a", "bytes=1000-"), ("a", None)]


def test_a_part_that_is_whole_or_too_long(server, tmp_path):
    part_of(tmp_path, CONTENT)
    assert obtain(remote(server.url("a", good())), tmp_path).read_bytes() == CONTENT
    assert server.asked == []
    (tmp_path / "file.bin").unlink()
    part_of(tmp_path, CONTENT + b"more")
    assert obtain(remote(server.url("a", good())), tmp_path).read_bytes() == CONTENT
    assert server.asked == [("a", None)]
    (tmp_path / "file.bin").unlink()
    part_of(tmp_path, CONTENT + b"more")

    def picky(handler, count: int) -> None:
        if start_of(handler):
            head(handler, 416, 0, Content_Range=f"bytes */{len(CONTENT)}")
        else:
            good()(handler, count)

    assert obtain(remote(server.url("picky", picky), size=0), tmp_path).read_bytes() == CONTENT
    assert [asked for name, asked in server.asked if name == "picky"] == [
        f"bytes={len(CONTENT) + 4}-",
        None,
    ]


def test_a_page_in_between_does_not_cost_what_has_come(server, tmp_path):
    part_of(tmp_path, CONTENT[:100_000])
    refused(remote(server.url("page", says(200, QUOTA))), tmp_path, "speaks of a quota")
    assert obtain(remote(server.url("a", good())), tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == ("a", "bytes=100000-")
