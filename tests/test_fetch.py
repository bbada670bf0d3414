"""Fetching against a local server that fails in every way that servers were seen to fail."""

import hashlib
import json
import re
import shutil
import threading

import pytest

from cml_bench.data import _download, _source
from cml_bench.data._source import obtain_all, sha256_of
from cml_bench.data.prepared import LocalCopy
from cml_bench.errors import UserError
from tests.helpers.fetched import names, obtain, part_of, refused
from tests.helpers.servers import (
    CONTENT,
    QUOTA,
    SHA,
    good,
    remote,
    says,
    silent_after,
    unknown_length,
)

# -- what servers do


def test_a_good_file_is_fetched_once_and_shown(server, tmp_path):
    said = []
    file = remote(server.url("a", good()))
    path = obtain(file, tmp_path, say=said.append)
    assert path.read_bytes() == CONTENT
    assert names(tmp_path) == ["file.bin"]
    assert obtain(file, tmp_path, say=said.append) == path
    assert server.asked == [("a", None)]
    assert said[0] == f"getting file.bin (0.5 MB) from {file.urls[0]}"
    assert said[1] == "file.bin: 0.0 of 0.5 MB (0 %)"
    assert said[-1] == "file.bin: 0.5 of 0.5 MB (100 %)"


def test_a_published_md5_and_size_verify_too(server, tmp_path):
    md5 = hashlib.md5(CONTENT).hexdigest()
    assert obtain(remote(server.url("a", good()), sha256="", md5=md5), tmp_path / "a").exists()
    refused(
        remote(server.url("b", good(CONTENT[::-1])), sha256="", md5=md5),
        tmp_path / "b",
        "another digest",
    )
    refused(
        remote(server.url("c", unknown_length(CONTENT + b"x")), sha256="", md5=md5),
        tmp_path / "c",
        "has more than",
    )


def test_a_truncated_file_is_not_taken_and_the_next_mirror_is(server, tmp_path):
    file = remote(server.url("short", good(CONTENT[:300_000])), server.url("a", good()))
    assert obtain(file, tmp_path).read_bytes() == CONTENT
    text = refused(
        remote(file.urls[0]), tmp_path / "x", r"has 300,000 bytes there, 512,000 are expected"
    )
    assert (
        f"put the file (512,000 bytes, SHA-256 {SHA[:12]}…) at {tmp_path / 'x' / 'file.bin'}"
        " yourself" in text
    )
    assert names(tmp_path / "x") == []


def test_a_truncated_file_without_a_length_is_not_taken(server, tmp_path):
    file = remote(server.url("short", unknown_length(CONTENT[:300_000])))
    refused(file, tmp_path, r"cut after 300,000 of 512,000 bytes \(300,000 bytes are kept")
    assert not (tmp_path / "file.bin").exists()


def test_a_slow_server_is_waited_for_as_long_as_bytes_come(server, tmp_path):
    assert obtain(remote(server.url("slow", good(pause=0.1))), tmp_path).read_bytes() == CONTENT
    assert server.asked == [("slow", None)]


def test_after_a_silent_server_the_next_one_goes_on(server, tmp_path):
    file = remote(
        server.url("silent", silent_after(200_000, 2.0)), server.url("a", good(tag='"2"'))
    )
    said: list[str] = []
    assert obtain(file, tmp_path, say=said.append).read_bytes() == CONTENT
    assert any("no byte came for 0.5 s" in text for text in said)
    assert [name for name, _ in server.asked] == ["silent", "a"]
    kept = int(re.fullmatch(r"bytes=(\d+)-", server.asked[1][1])[1])
    assert 100_000 < kept <= 200_000


def test_another_digest_is_refused_and_leaves_nothing(server, tmp_path):
    refused(
        remote(server.url("other", good(CONTENT[::-1]))),
        tmp_path,
        "another digest than the published one",
    )
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("answer", "pattern"),
    [
        (says(200, QUOTA), r"a web page, not the file \(it speaks of a quota\)"),
        (
            says(200, b"<html>Please log in</html>", "application/zip"),
            r"a web page, not the file \(a download page",
        ),
        (says(200, b"\n <HTML><head>"), "a web page, not the file"),
        (says(200, b"Download quota exceeded for this file.", "text/plain"), "speaks of a quota"),
        (says(403, b"rate limit exceeded"), "status 403, and it speaks of a quota: try later"),
        (
            says(
                200,
                b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>',
                "application/xml",
            ),
            r"a web page, not the file \(a download page, a log-in or an error\)",
        ),
        (
            says(200, b"\xef\xbb\xbf<Error><Code>NoSuchKey</Code></Error>", "application/zip"),
            "a web page, not the file",
        ),
        (says(404, b""), "status 404"),
        (says(503, b"busy"), "status 503"),
    ],
)
@pytest.mark.parametrize("size", [len(CONTENT), 0])
def test_pages_and_notices_are_told_from_files(answer, pattern, size, server, tmp_path):
    refused(remote(server.url("page", answer), size=size), tmp_path, pattern)
    assert names(tmp_path) == []
    file = remote(server.url("page", answer), server.url("a", good()), size=size)
    assert obtain(file, tmp_path).read_bytes() == CONTENT, "the next mirror has it"


def test_no_server_at_all(tmp_path):
    refused(
        remote("http://127.0.0.1:9/x", "http://nowhere.invalid/x"),
        tmp_path,
        r"9/x: no connection.*invalid/x: no c",
    )


# -- two at once, room, terms of trust


def test_two_fetches_at_once_are_one_download(server, tmp_path):
    file = remote(server.url("slow", good(pause=0.05)))
    paths, said = [], []

    def fetch() -> None:
        paths.append(obtain(file, tmp_path, say=said.append))

    threads = [threading.Thread(target=fetch) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert paths == [tmp_path / "file.bin"] * 2
    assert server.asked == [("slow", None)]
    assert sum("waiting for process" in text for text in said) == 1


def test_room_is_checked_before_the_first_byte(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(_source.shutil, "disk_usage", lambda path: usage._replace(free=600_000))
    file = remote(server.url("a", good()))
    with pytest.raises(
        UserError, match=r"room for 0\.00 GB, and 0\.00 GB are needed .* `data_dir`"
    ):
        obtain_all((file,), tmp_path, {}, more_bytes=100_000)
    assert server.asked == []
    obtain_all((file,), tmp_path, {}, more_bytes=50_000)


def test_a_full_disk_keeps_what_has_come(server, tmp_path, monkeypatch):
    part_of(tmp_path, CONTENT[:1000])
    original = open

    def full(path, mode="r", *rest, **more):
        if "a" in mode and str(path).endswith(".part"):
            raise OSError(28, "No space left on device")
        return original(path, mode, *rest, **more)

    monkeypatch.setattr(_download, "open", full, raising=False)
    refused(
        remote(server.url("a", good())),
        tmp_path,
        r"\.part cannot be written \(No space left.* is kept",
    )
    assert (tmp_path / ".incoming" / "file.bin.part").stat().st_size == 1000


def test_without_a_published_digest_the_first_download_counts(server, tmp_path):
    said: list[str] = []
    file = remote(server.url("a", good()), sha256="", size=0)
    path = obtain(file, tmp_path, say=said.append)
    assert (
        said[-1]
        == f"file.bin is published without a digest. Its SHA-256 is {SHA}; from now on it must stay"
        " the same."
    )
    assert json.loads((tmp_path / "digests.json").read_text()) == {"file.bin": SHA}
    assert obtain(file, tmp_path) == path
    path.unlink()
    server.url("a", good(CONTENT[::-1]))
    text = refused(
        file,
        tmp_path,
        rf"its SHA-256 is not {SHA[:12]}…, which .*digests\.json keeps.*take the line of",
    )
    assert f"SHA-256 {SHA[:12]}" in text
    assert not path.exists()
    path.write_bytes(b"something else")
    refused(file, tmp_path, "is not the file of the first download")
    (tmp_path / "digests.json").write_text("{")
    refused(file, tmp_path, r"digests\.json is damaged")


def test_without_a_digest_only_the_same_version_is_continued(server, tmp_path):
    first = server.url("first", silent_after(200_000, 1.0))
    file = remote(first, server.url("a", good()), sha256="", size=0)
    assert obtain(file, tmp_path).read_bytes() == CONTENT
    assert server.asked == [("first", None), ("a", None)]


# -- a mirror of the user's


def test_an_institutions_mirror_comes_first_and_may_be_repacked(server, tmp_path):
    file = remote(server.url("published", good()))
    same = LocalCopy(url=server.url("mirror", good()), sha256=SHA)
    assert obtain(file, tmp_path, same).name == "file.bin"
    repacked = CONTENT + b"repacked"
    other = LocalCopy(
        url=server.url("repacked", good(repacked)), sha256=hashlib.sha256(repacked).hexdigest()
    )
    path = obtain(file, tmp_path, other)
    assert path.read_bytes() == repacked
    assert sha256_of(tmp_path / "file.bin") == SHA, "the published one is still there"
    assert [name for name, _ in server.asked] == ["mirror", "repacked"]
    wrong = LocalCopy(url=server.url("gone", says(404, b"")), sha256="1" * 64)
    with pytest.raises(
        UserError, match=r"file\.bin could not be fetched\. http.*/gone: status 404"
    ):
        obtain(file, tmp_path, wrong, say=lambda text: None)
