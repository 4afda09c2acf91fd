"""What `/config` and `dspy-jobs config show` hide."""

from __future__ import annotations

from dspy_jobs.redaction import redacted
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
