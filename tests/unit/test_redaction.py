"""What `/config` and `dspy-jobs config show` hide."""

from __future__ import annotations

import pytest

from dspy_jobs import redaction
from dspy_jobs.redaction import keep_secret, redacted, without_secrets
from dspy_jobs.settings import ModelSettings, Settings


def test_secrets_are_hidden_wherever_they_stand() -> None:
    """Passwords in addresses and values under telling names are unreadable; the rest stays."""
    model = ModelSettings(
        model="openai/x",
        base_url="https://x/?api_key=abc&v=1",
        api_key_env="OPENAI_API_KEY",
        parameters={"api_key": "abc", "max_tokens": 5},
    )
    settings = Settings(redis_url="redis://user:hunter2@host:6379/0", default_model="a", models={"a": model})
    shown = redacted(settings)
    assert shown["redis_url"] == "redis://user:[redacted]@host:6379/0"
    assert shown["models"]["a"]["base_url"] == "https://x/?api_key=[redacted]&v=1"
    assert shown["models"]["a"]["parameters"] == {"api_key": "[redacted]", "max_tokens": 5}
    assert shown["models"]["a"]["api_key_env"] == "OPENAI_API_KEY"


def test_free_texts_lose_what_looks_like_a_key_and_what_is_known_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one of no known form; too short a secret may be any word and stays."""
    monkeypatch.setattr(redaction, "_given", [])
    keep_secret(["Tr0ub4dor and 3", "abc"])
    said = "Incorrect: Tr0ub4dor and 3, or sk-abcdefgh1234 at https://u:pw@host/?token=t abc"
    assert without_secrets(said) == (
        "Incorrect: [redacted], or [redacted] at https://u:[redacted]@host/?token=[redacted] abc"
    )
