"""The code a program is made of: its factory's module, and what that imports of the same people's code."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

#: Where code lies that is not the user's: it changes with the dependencies, not with the program.
_FOREIGN = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib"))

#: This project's own packages, which a program may import for its types.
_OURS = ("dspy_jobs", "worker")


def digest_of_sources(module: str) -> str:
    """SHA-256, in hex, over the sources of a module and all modules it imports, directly or not.

    Imports are read from the sources, wherever they stand. Left out are the standard library and installed packages,
    unless the module is of one itself; and what is imported by a computed name.
    """
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _file_of(name)
        if name in found or path is None or not _is_the_users(name, path, module):
            continue
        found[name] = path
        waiting += _imported(name, path)
    digest = hashlib.sha256()
    for name, path in sorted(found.items()):
        digest.update(f"{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@cache
def _file_of(name: str) -> Path | None:
    """The file of a module; None where there is no such module, or it has no file."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):
        return None  # not a module but a name in one
    return Path(spec.origin).resolve() if spec and spec.has_location and spec.origin else None


def _is_the_users(name: str, path: Path, program: str) -> bool:
    top = name.partition(".")[0]
    if top == program.partition(".")[0]:
        return True
    return top not in _OURS and not any(path.is_relative_to(place) for place in _FOREIGN)


def _imported(name: str, path: Path) -> Iterator[str]:
    """Names that a module imports: modules, and what may be modules or names in them."""
    if path.suffix != ".py":
        return
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    yield package
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from _with_parents(base)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _with_parents(name: str) -> Iterator[str]:
    """A dotted name and the packages it is in: importing it runs them, too."""
    while name:
        yield name
        name = name.rpartition(".")[0]
