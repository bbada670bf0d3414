"""Every random number is a pure function of (purpose, seed, index).

The bits are the raw output of the Philox 4x64 counter-based generator, whose key is a SHA-256 hash
of what they are for. Raw words are part of the algorithm's definition, so they do not change with
the version of numpy. Everything else (uniform numbers, choices) is computed from them here.
"""

import hashlib

import numpy as np

_WORDS_PER_BLOCK = 4  # one Philox counter value yields four 64-bit words


def key(*parts: object) -> np.ndarray:
    """A 128-bit Philox key (two uint64) from the texts of any parts."""
    text = "\x1f".join(str(part) for part in parts)
    return np.frombuffer(hashlib.sha256(text.encode()).digest()[:16], dtype="<u8").astype(np.uint64)


def words(philox_key: np.ndarray, first: int, count: int, width: int) -> np.ndarray:
    """The words of items ``first .. first+count-1``: uint64 (count, width).

    Item i always has the same words, whatever else is drawn.
    """
    blocks = -(-width // _WORDS_PER_BLOCK)
    stream = np.random.Philox(key=philox_key, counter=first * blocks)
    raw = stream.random_raw(count * blocks * _WORDS_PER_BLOCK)
    return raw.reshape(count, blocks * _WORDS_PER_BLOCK)[:, :width]


def uniform(raw: np.ndarray) -> np.ndarray:
    """Raw words to float64 in [0, 1): the upper 53 bits."""
    return (raw >> np.uint64(11)) * 2.0**-53


def smallest(raw: np.ndarray, k: int) -> np.ndarray:
    """Indices of the k smallest words along the last axis, by ascending word.

    That is a random choice of k in random order. A ValueError if there are fewer than k words.
    """
    if k > raw.shape[-1]:
        raise ValueError(f"cannot choose {k} of {raw.shape[-1]}")
    part = (
        np.argpartition(raw, k - 1, axis=-1)[..., :k]
        if k < raw.shape[-1]
        else np.argsort(raw, axis=-1)
    )
    order = np.argsort(np.take_along_axis(raw, part, axis=-1), axis=-1)
    return np.take_along_axis(part, order, axis=-1)
