"""Tells whether two processes run the same configuration, as far as that decides what becomes of jobs."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from dspy_jobs.redaction import redacted
from dspy_jobs.settings import Settings

#: What decides how jobs run. Ports, folders and log formats may differ from host to host.
_SHARED = ("default_model", "jobs", "limits", "costs", "budgets", "models", "programs")
#: Of the worker's and the cache's settings, what is no matter of the host.
_OF_WORKER = ("concurrency", "hold_seconds", "chunk_size", "lease_seconds")
_OF_CACHE = ("enabled", "redis_seconds")


def decisive(shown: dict[str, Any]) -> dict[str, Any]:
    """Of settings as `redacted` shows them, those that must be the same in every process."""
    return {
        **{name: shown[name] for name in _SHARED},
        "worker": {name: shown["worker"][name] for name in _OF_WORKER},
        "cache": {name: shown["cache"][name] for name in _OF_CACHE},
    }


def config_digest(settings: Settings) -> str:
    """Twelve hex digits over all settings that must be the same in every process; secrets are no part of them."""
    text = json.dumps(decisive(redacted(settings)), sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
