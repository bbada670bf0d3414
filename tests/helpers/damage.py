"""Damage to files."""

from pathlib import Path


def flip(path: Path, place: int, bits: int = 1) -> None:
    """Flip ``bits`` of the byte at ``place``."""
    content = bytearray(path.read_bytes())
    content[place] ^= bits
    path.write_bytes(bytes(content))
