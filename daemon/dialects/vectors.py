"""Embeddings as their clients want them: shortened to `dimensions`, in base64.

Rule: the same on every way, because servers differ. One that obeyed `dimensions` has nothing left to be cut; one that
read over it (Ollama 0.9, llama.cpp) has its vectors cut and brought to the length of one again, as newer Ollamas
do it. A vector that is shorter than that stays as it is.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct


def shortened(vector: list[float], dimensions: int) -> list[float]:
    """Its first `dimensions` numbers, normalised; the vector itself where it has no more, or `dimensions` is 0."""
    if not 0 < dimensions < len(vector):
        return vector
    cut = vector[:dimensions]
    norm = max(math.sqrt(math.fsum(value * value for value in cut)), 1e-12)
    return [value / norm for value in cut]


def in_base64(vector: list[float]) -> str:
    """A vector as OpenAI's `encoding_format: base64`: little-endian float32. ValueError where it has no such form."""
    try:
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    except (struct.error, OverflowError) as error:
        raise ValueError("a vector has something that is no number of 32 bits") from error


def from_base64(text: str) -> list[float]:
    """The numbers of such a text. ValueError where it is none."""
    try:
        data = base64.b64decode(text, validate=True)
        return list(struct.unpack(f"<{len(data) // 4}f", data))
    except (struct.error, binascii.Error) as error:
        raise ValueError("a vector in base64 is not of 32-bit numbers") from error
