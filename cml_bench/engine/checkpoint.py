"""Checkpoints of a training: two files written in turn, so that one of them is always whole.

A file begins with the digest of its content.
"""

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from cml_bench.system.files import write_bytes

_NAMES = ("checkpoint-a.pt", "checkpoint-b.pt")
_DIGEST = 64  # bytes


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write ``state`` over the older of the two files."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    times = {
        name: (folder / name).stat().st_mtime_ns if (folder / name).exists() else 0
        for name in _NAMES
    }
    write_bytes(
        folder / min(_NAMES, key=times.__getitem__),
        hashlib.sha256(payload).hexdigest().encode() + payload,
    )


def load(folder: Path) -> dict[str, Any] | None:
    """The newest whole checkpoint, or None. Damaged files are passed over."""
    states = []
    for name in _NAMES:
        path = folder / name
        if not path.exists():
            continue
        content = path.read_bytes()
        digest, payload = content[:_DIGEST], content[_DIGEST:]
        if hashlib.sha256(payload).hexdigest().encode() == digest:
            states.append(torch.load(io.BytesIO(payload), weights_only=True))
    return max(states, key=lambda state: state["step"], default=None)


def clear(folder: Path) -> None:
    """Remove the checkpoints of a finished run."""
    for name in _NAMES:
        (folder / name).unlink(missing_ok=True)
