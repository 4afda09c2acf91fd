"""Processes that reach Redis over TLS, as docs/deployment.md says to spell its address."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.system.fleet import Fleet

pytestmark = pytest.mark.system


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for this machine that nobody has vouched for, with its key in the same file."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here to make a certificate with")
    file, key = tmp_path / "redis.pem", tmp_path / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*make, *names, "-keyout", key, "-out", file], check=True, capture_output=True)
    file.write_bytes(file.read_bytes() + key.read_bytes())
    return file


@pytest.fixture
def address(certificate: Path, redis_url: str) -> Iterator[str]:
    """Where this test's Redis is reached over TLS, without what the address says of certificates."""
    socket = redis_url.removeprefix("unix://").partition("?")[0]
    command = [sys.executable, "-m", "tests.system.tls_relay", socket, str(certificate)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as relay:
        assert relay.stdout is not None
        yield f"rediss://localhost:{relay.stdout.readline().strip()}/0"
        relay.kill()


@pytest.mark.parametrize(
    ("query", "is_trusted"),
    [("ssl_cert_reqs=required&ssl_ca_certs={file}", False), ("ssl_cert_reqs=required", True)],
)
def test_a_worker_works_over_tls(fleet: Fleet, certificate: Path, address: str, query: str, is_trusted: bool) -> None:
    """With the authority's file named in the address, or trusted by the machine, jobs run as ever."""
    fleet.environ["REDIS_URL"] = f"{address}?{query.format(file=certificate)}"
    if is_trusted:
        fleet.environ["SSL_CERT_FILE"] = str(certificate)
    fleet.start()
    assert fleet.wait(fleet.submit("echo", text="over TLS"), "succeeded").outcome


def test_a_stranger_is_refused(fleet: Fleet, address: str) -> None:
    """A server whose certificate nobody trusts is not talked to: the worker ends and says why."""
    environ = {**fleet.environ, "REDIS_URL": f"{address}?ssl_cert_reqs=required"}
    command = [sys.executable, "-m", "worker"]
    done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert "certificate verify failed" in done.stderr
