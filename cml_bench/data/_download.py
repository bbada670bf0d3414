"""A downloader for pooch.

It continues a download that was interrupted, and it knows a web page from the file.
"""

import itertools
import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import requests
import urllib3

from cml_bench.errors import UserError
from cml_bench.system.files import write_json

CONNECT_SECONDS, STALL_SECONDS = 30.0, 60.0  # a slow server has no limit, a silent one has this
# After a cut that brought new bytes, the same address is tried again: so many times in all, after
# such a pause. After a cut that brought none, the next address is tried.
PAUSE_SECONDS, TRIES = 2.0, 20
LINE_SECONDS, LINE_SHARE = 10.0, 0.1  # a log gets a line after so long, or such a share of the file
_CHUNK = 1 << 16


class Failed(Exception):
    """This address does not deliver the file. The text says why."""


class _Cut(Exception):
    """The connection ended early."""


_BROKEN = (
    _Cut,
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
)


class Resuming:
    """A ``downloader`` for pooch.retrieve.

    The bytes go to the file ``part``. It stays when the connection is cut, the server falls silent
    or the process is killed, and the next attempt continues it, from any address. ``size`` is in
    bytes (0: unknown). ``known``: the file's digest is known and will be checked. If it is not,
    only the same version from the same address is continued, as its ETag or date tells. ``say``
    gets lines about the progress; a terminal gets a bar.
    """

    def __init__(self, part: Path, size: int, known: bool, say: Callable[[str], None]):
        self.part, self.size, self.known, self.say = part, size, known, say
        self.note = part.with_name(part.name + ".json")
        self.resumed = False  # whether several attempts made the file

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        """Write the whole file to ``output_file``, or raise :class:`Failed` with the reason."""
        for tries in range(1, TRIES + 1):
            before = self._have()
            try:
                self._receive(url)
                break
            except _BROKEN as error:
                started_again = before and not self._have()
                if (
                    _silent(error)
                    or tries == TRIES
                    or (self._have() <= before and not started_again)
                ):
                    raise Failed(f"{_name(error)}{self._kept()}") from None
                self.say(f"{self.part.name}: {_name(error)}{self._kept()}")
                time.sleep(PAUSE_SECONDS)
            except requests.RequestException as error:
                raise Failed(_name(error)) from None
        os.replace(self.part, output_file)
        self.note.unlink(missing_ok=True)

    def forget(self) -> None:
        """Remove the bytes received so far."""
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _kept(self) -> str:
        return (
            f" ({self._have():,} bytes are kept, and the next attempt goes on from there)"
            if self._have()
            else ""
        )

    def _receive(self, url: str) -> None:
        have = self._have()
        if have and have == self.size:
            self.resumed = True
            return
        # Not packed: a packed answer has no ranges.
        headers = {"Accept-Encoding": "identity", **self._range(url, have)}
        with requests.get(
            url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, STALL_SECONDS)
        ) as answer:
            if answer.status_code == 416:  # the part is longer than what this server has
                self.forget()
                raise _Cut("the server has no such range")
            chunks = answer.iter_content(_CHUNK)
            beginning = next(chunks, b"")
            if answer.status_code not in (200, 206):
                quota = (
                    ", and it speaks of a quota: try later, or use another source"
                    * _speaks_of_quota(beginning)
                )
                raise Failed(f"status {answer.status_code}{quota}")
            start, total = self._place(answer, have)
            if not start and (page := _page(answer, beginning)):
                raise Failed(page)
            if total and self.size and total != self.size:
                raise Failed(f"it has {total:,} bytes there, {self.size:,} are expected")
            if not start:
                self.forget()
                write_json(self.note, {"url": url, "version": _version(answer)})
            self.resumed = bool(start)
            self._write(itertools.chain((beginning,), chunks), start, total or self.size)

    def _range(self, url: str, have: int) -> dict[str, str]:
        """Headers that ask for the rest of the file; none if it might be the rest of another."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            version = note["version"] if note["url"] == url else ""
        except (OSError, ValueError, KeyError, TypeError):
            version = ""
        if not have or have > (self.size or have) or not (self.known or version):
            return {}
        return {"Range": f"bytes={have}-"} | ({"If-Range": version} if version else {})

    def _place(self, answer: requests.Response, have: int) -> tuple[int, int]:
        """The place of the answer's first byte in the file, and the file's size (0: not told)."""
        if answer.status_code == 206:
            match = re.fullmatch(
                r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", "").strip()
            )
            if not match or int(match[1]) != have:
                self.forget()
                raise _Cut("the server sent another range")
            return have, int(match[2]) if match[2] != "*" else 0
        length = answer.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else 0

    def _write(self, chunks: Iterable[bytes], done: int, total: int) -> None:
        progress = _progress(self.part.name, total, done, self.say)
        try:
            with open(self.part, "ab") as file:
                for chunk in chunks:
                    done += len(chunk)
                    if self.size and done > self.size:
                        raise Failed(f"it has more than the {self.size:,} bytes that are expected")
                    file.write(chunk)
                    progress.update(len(chunk))
        except Failed:
            self.forget()
            raise
        except requests.RequestException:  # which is an OSError, but none of the disk
            raise
        except OSError as error:
            raise UserError(
                f"{self.part} cannot be written ({error.strerror or error}). Mend that and start"
                " again: what has come is kept, and the next attempt goes on from there."
            ) from None
        finally:
            progress.close()
        if total and done < total:
            raise _Cut(f"the connection was cut after {done:,} of {total:,} bytes")


def _silent(error: Exception) -> bool:
    inner = error.args[0] if error.args else None
    return isinstance(error, requests.Timeout) or isinstance(
        inner, urllib3.exceptions.ReadTimeoutError
    )


def _name(error: Exception) -> str:
    """The error in a few words: without the address, and without a chain of wrapped errors."""
    if isinstance(error, _Cut):
        return str(error)
    if isinstance(error, requests.ConnectTimeout):
        return f"no connection within {CONNECT_SECONDS:g} s"
    if _silent(error):
        return f"no byte came for {STALL_SECONDS:g} s"
    names = {
        "ConnectionError": "no connection, or a broken one",
        "SSLError": "its certificate is not accepted",
    }
    return names.get(type(error).__name__, type(error).__name__)


def _version(answer: requests.Response) -> str:
    """The version for an If-Range header: a strong ETag, else a date, else empty."""
    tag = answer.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified", "")


# HTML, and the <Error> of storage services, some of which send it with status 200.
_PAGE = re.compile(
    rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype"
    rb" html|html|head|script|error)\b",
    re.I | re.S,
)
_QUOTA = re.compile(rb"quota|too many users|rate limit|download limit", re.IGNORECASE)


def _speaks_of_quota(beginning: bytes) -> bool:
    return bool(_QUOTA.search(beginning)) and b"\0" not in beginning


def _page(answer: requests.Response, beginning: bytes) -> str:
    """A sentence if the answer is a web page or a notice instead of the file, else empty."""
    page = _PAGE.match(beginning) or "text/html" in answer.headers.get("Content-Type", "").lower()
    quota = _speaks_of_quota(beginning)
    if not page and not (quota and len(beginning) < 5000):
        return ""
    why = "it speaks of a quota" if quota else "a download page, a log-in or an error"
    return (
        f"the server answered with a web page, not the file ({why}): try later, or use another"
        " source"
    )


class _Progress(Protocol):
    def update(self, count: int) -> object: ...

    def close(self) -> object: ...


def _progress(name: str, total: int, start: int, say: Callable[[str], None]) -> _Progress:
    """A bar on a terminal, lines elsewhere."""
    name = name.strip(".").removesuffix(".part")
    if not sys.stderr.isatty():
        return _Lines(name, total, start, say)
    from tqdm import tqdm

    return tqdm(
        desc=name, total=total or None, initial=start, unit="B", unit_scale=True, unit_divisor=1000
    )


class _Lines:
    """Says a line at the start, at the end, after every tenth of the file and every ten seconds."""

    def __init__(self, name: str, total: int, start: int, say: Callable[[str], None]):
        self.name, self.total, self.done, self.say = name, total, start, say
        self._tell()

    def update(self, count: int) -> None:
        self.done += count
        if time.monotonic() >= self.next_time or self.done >= self.next_size:
            self._tell()

    def close(self) -> None:
        self._tell()

    def _tell(self) -> None:
        self.next_time = time.monotonic() + LINE_SECONDS
        self.next_size = self.done + LINE_SHARE * self.total if self.total else math.inf
        share = (
            f" of {self.total / 1e6:,.1f} MB ({100 * self.done / self.total:.0f} %)"
            if self.total
            else " MB"
        )
        self.say(f"{self.name}: {self.done / 1e6:,.1f}{share}")
