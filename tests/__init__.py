"""Tests: unit needs nothing, integration needs Redis, system runs whole processes."""
