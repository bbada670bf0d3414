"""A server on this machine, and answers with which it fails as servers do."""

import hashlib
import http.server
import re
import threading
import time
from collections.abc import Callable

from cml_bench.data._source import RemoteFile

CONTENT = bytes(range(256)) * 2000  # 512,000 bytes: several chunks
SHA = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """A server that answers for /name by ``behaviour[name]``.

    ``asked`` lists pairs (name, Range header).
    """

    def __init__(self):
        self.behaviour: dict[str, Callable] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.lock = threading.Lock()

    def url(self, name: str, behaviour: Callable) -> str:
        self.behaviour[name] = behaviour
        return f"{self.address}/{name}"

    def __enter__(self):
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                name = self.path.strip("/")
                with server.lock:
                    server.asked.append((name, self.headers.get("Range")))
                    count = sum(asked == name for asked, _ in server.asked)
                self.close_connection = True
                server.behaviour[name](self, count)

            def log_message(self, *args):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error):
        self.http.shutdown()
        self.http.server_close()


def head(handler, status: int, length: int | None, **headers: str) -> None:
    handler.send_response(status)
    if length is not None:
        headers["Content-Length"] = str(length)
    for key, value in {
        "Content-Type": "application/octet-stream",
        "Connection": "close",
        **headers,
    }.items():
        handler.send_header(key.replace("_", "-"), value)
    handler.end_headers()


def unknown_length(content: bytes = CONTENT):
    def answer(handler, _: int) -> None:
        head(handler, 200, None)
        handler.wfile.write(content)

    return answer


def remote(*urls: str, sha256: str = SHA, size: int = len(CONTENT), md5: str = "") -> RemoteFile:
    return RemoteFile("file.bin", urls, size, sha256, md5=md5)


QUOTA = (
    b"<!DOCTYPE html><html><title>Google Drive - Quota exceeded</title>Too many users have viewed"
    b" it.</html>"
)


def start_of(handler) -> int:
    match = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range") or "")
    return int(match[1]) if match else 0


def good(
    content: bytes = CONTENT,
    until: int | None = None,
    tag: str = '"1"',
    pause: float = 0.0,
    ranges: bool = True,
):
    """An answer with ``content`` that understands Range and If-Range.

    The first answer ends after ``until`` bytes.
    """

    def answer(handler, count: int) -> None:
        start = start_of(handler) if ranges and handler.headers.get("If-Range", tag) == tag else 0
        more = {"ETag": tag}
        if start:
            more["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        head(handler, 206 if start else 200, len(content) - start, **more)
        end = until if until is not None and count == 1 else len(content)
        step = 1 << 16 if pause else len(content)
        for place in range(start, end, step):
            handler.wfile.write(content[place : min(place + step, end)])
            handler.wfile.flush()
            time.sleep(pause)

    return answer


def silent_after(count: int, seconds: float):
    def answer(handler, _: int) -> None:
        head(handler, 200, len(CONTENT))
        handler.wfile.write(CONTENT[:count])
        handler.wfile.flush()
        time.sleep(seconds)

    return answer


def says(status: int, body: bytes, kind: str = "text/html"):
    def answer(handler, _: int) -> None:
        head(handler, status, len(body), Content_Type=kind)
        handler.wfile.write(body)

    return answer
