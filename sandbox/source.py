"""What a value is made from: the inputs, a digest of them that decides every free choice, and its place."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from sandbox import findings, texts
from sandbox.python_types import Schema


@dataclass(frozen=True, slots=True)
class Source:
    """What answers are made from: the input values, and a digest of them that decides every free choice."""

    text: str
    quote: str
    digest: bytes

    @classmethod
    def of(cls, inputs: Mapping[str, str], salt: str = "") -> Source:
        text = "\n".join(inputs.values())
        digest = hashlib.blake2b(f"{salt}\0{text}".encode(errors="replace"), digest_size=16).digest()
        return cls(text, texts.quotation(inputs), digest)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in an answer a value goes: its field's name, its path, its position in a list, its depth."""

    name: str
    path: str
    source: Source
    root: Schema
    index: int = 0
    depth: int = 0

    def draw(self, purpose: str = "") -> int:
        """A 64-bit number that depends on the inputs, the path and the purpose alone."""
        key = f"{self.path}\0{purpose}".encode()
        return int.from_bytes(hashlib.blake2b(key, digest_size=8, key=self.source.digest).digest())

    def tag(self) -> str:
        """Six digits that tell answers to different inputs apart."""
        return f"{self.draw('tag') % 16**6:06x}"

    def inside(self, name: str, step: str, index: int) -> Place:
        return Place(name, f"{self.path}/{step}", self.source, self.root, index, self.depth + 1)

    def found(self) -> str | None:
        """What the inputs contain for a field of this name."""
        values = findings.find(self.name, self.source.text)
        return values[self.index % len(values)] if values else None
