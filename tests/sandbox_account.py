"""A model of the sandbox that only one test calls, and what the sandbox has counted for it."""

from __future__ import annotations

import secrets

import httpx


class Account:
    """The model's name, with modifiers that tell the sandbox how to behave."""

    def __init__(self, sandbox_url: str, modifiers: str) -> None:
        self.name = f"sandbox;{modifiers};seed={secrets.token_hex(4)}"
        self._url = sandbox_url

    def as_toml(self, alias: str, more: str = "") -> str:
        """The model's section of a configuration."""
        return f'[models.{alias}]\nmodel = "openai/{self.name}"\nbase_url = "{self._url}/v1"\n{more}\n'

    def read(self, count: str) -> int:
        """One of its counts."""
        models = httpx.get(f"{self._url}/ledger").json()["models"]
        return int(models.get(self.name, {}).get(count, 0))
