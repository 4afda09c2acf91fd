"""docker-compose.yml: by the Compose specification's schema, and by what no schema says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from api.app import ROUTES
from dspy_jobs import __version__
from dspy_jobs.settings import ConfigurationError, FlowerSettings, Settings, load_settings
from tests.cluster import bytes_of
from tests.conftest import ROOT
from worker.chunk import STUCK_SECONDS
from worker.flower import credentials

TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
#: Ours, which read our configuration.
OURS = ("describe", "api", "worker", "flower")
#: Seconds the autoscaler gives a worker beyond its drain, and then some for itself.
SPARE_SECONDS = 10


@pytest.fixture
def example() -> dict[str, str]:
    """The variables of .env.example."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.fixture
def settings() -> Settings:
    """What the containers read."""
    return load_settings(ROOT / "ops" / "dspy-jobs.toml", {})


def _problems(compose: dict[str, Any]) -> list[str]:
    schema = json.loads(files("check_jsonschema.builtin_schemas.vendor").joinpath("compose-spec.json").read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    return [error.json_path for error in validator.iter_errors(compose)]


def test_it_satisfies_the_specification() -> None:
    """The file is one the Compose specification's own JSON Schema takes."""
    assert _problems(COMPOSE) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("stop_grace_period", "stop_grace"),
        ("condition: service_healthy", "condition: healthy"),
        ("cap_drop", "capdrop"),
    ],
)
def test_the_schema_refuses_mistakes(old: str, new: str) -> None:
    """Each of these mistakes is found."""
    assert old in TEXT
    assert _problems(yaml.safe_load(TEXT.replace(old, new)))


def test_every_variable_has_an_example_and_a_default(example: dict[str, str]) -> None:
    """What the file asks of the environment stands in .env.example, with the same default; nothing else does."""
    asked = dict(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", TEXT))
    assert set(re.findall(r"(?<!\$)\$\{?([A-Z_]+)", TEXT)) == set(asked)
    assert asked.keys() | {"COMPOSE_PROFILES"} == example.keys()
    assert {name: example[name] for name in asked} == asked


def test_everything_is_published_on_this_machine_only(example: dict[str, str]) -> None:
    """No port is published but on the one address, which is the loopback's; Redis is not published at all."""
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("${PUBLISH_ADDRESS:-127.0.0.1}:${") for port in ports)
    assert example["PUBLISH_ADDRESS"] == "127.0.0.1"
    assert COMPOSE["networks"]["data"] == {"internal": True}
    for name in ("redis", "cache"):
        assert SERVICES[name]["networks"] == ["data"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_hardened_and_bounded(name: str) -> None:
    """Read-only, no capability, no privilege to gain, limits, bounded logs, and a way to tell whether it is well."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["deploy"]["resources"]["limits"]["memory"]
    assert service["logging"]["options"]["max-size"]
    assert "privileged" not in service
    assert "docker.sock" not in str(service)
    assert "healthcheck" in service or "HEALTHCHECK" in (ROOT / service["build"]["dockerfile"]).read_text()


def test_who_is_waited_for_is_there() -> None:
    """Dependencies exist, are waited for in a way they can satisfy, and a service of a profile is optional."""
    for service in SERVICES.values():
        for name, wish in service.get("depends_on", {}).items():
            other = SERVICES[name]
            ends = other["restart"] == "on-failure"
            assert wish["condition"] == ("service_completed_successfully" if ends else "service_healthy")
            assert wish.get("required", True) is ("profiles" not in other)


def test_files_and_volumes_exist() -> None:
    """What is mounted is in the repository and read-only, or a declared volume; every declared one is used."""
    mounts = [mount.split(":") for service in SERVICES.values() for mount in service.get("volumes", [])]
    from_here = [mount for mount in mounts if mount[0].startswith("./")]
    assert from_here
    for source, _, mode in from_here:
        assert (ROOT / source).exists(), source
        assert mode == "ro"
    assert {mount[0] for mount in mounts if not mount[0].startswith("./")} == set(COMPOSE["volumes"])
    used = {network for service in SERVICES.values() for network in service["networks"]}
    assert used == set(COMPOSE["networks"])


def test_images_are_of_this_version_and_have_their_files() -> None:
    """What is built bears the version of the code, from a Dockerfile with that stage."""
    for service in SERVICES.values():
        if "build" not in service:
            assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+[\w.-]*", service["image"]), "pinned by a tag"
            continue
        assert service["image"].endswith(f":{__version__}")
        stage = service["build"].get("target", "worker")
        assert f" AS {stage}\n" in (ROOT / service["build"]["dockerfile"]).read_text()


def test_the_configuration_reaches_its_services(settings: Settings) -> None:
    """Our services find the file where it is mounted, and each address in it and in the environment is a service's."""
    for name in OURS:
        service = SERVICES[name]
        assert f"./ops/dspy-jobs.toml:{service['environment']['DSPY_JOBS_CONFIG']}:ro" in service["volumes"]
        assert service["environment"]["REDIS_URL"] == "redis://redis:6379/0"
        assert service["environment"]["CACHE_URL"] == "redis://cache:6379/0"
    assert settings.models["sandbox"].base_url == "http://sandbox:8090/v1"
    assert SERVICES["sandbox"]["networks"][0] in SERVICES["worker"]["networks"]
    read = SERVICES["worker"]["environment"]["DSPY_JOBS_AUTOSCALER_SCALED_OBJECT"]
    assert f"./k8s/worker-scaledobject.yaml:{read}:ro" in SERVICES["worker"]["volumes"], "an edit needs no new image"
    keys = {model.api_key_env for model in settings.models.values()} - {None}
    assert keys <= SERVICES["worker"]["environment"].keys()


def test_every_setting_in_the_environment_is_one(settings: Settings, example: dict[str, str]) -> None:
    """The containers' variables are read without a complaint, by the very file they come with."""
    for name in OURS:
        given = {key: _filled_in(str(value), example) for key, value in SERVICES[name]["environment"].items()}
        read = load_settings(settings.source, {k: v for k, v in given.items() if k != "DSPY_JOBS_CONFIG"})
        assert read.default_model == "sandbox"
        assert read.worker.heartbeat_file is None


def _filled_in(value: str, variables: dict[str, str]) -> str:
    return re.sub(r"\$\{([A-Z_]+):-[^}]*\}", lambda match: variables[match[1]], value)


def test_no_job_is_cut_short(settings: Settings) -> None:
    """Longest job, and what giving up a stuck one takes < a worker's drain < what the autoscaler's stop may take."""
    grace = int(SERVICES["worker"]["stop_grace_period"].removesuffix("s"))
    longest = settings.jobs.max_timeout_seconds
    steps = [longest, longest + STUCK_SECONDS, settings.worker.drain_seconds]
    steps += [settings.worker.drain_seconds + SPARE_SECONDS, grace]
    assert all(before <= after for before, after in pairwise(steps)), steps


@pytest.mark.parametrize(("name", "policy", "share"), [("redis", "noeviction", 0.5), ("cache", "allkeys-lru", 0.75)])
def test_redis_never_outgrows_its_container(name: str, policy: str, share: float) -> None:
    """The ledger never evicts, the cache does; each leaves room for its own work."""
    words = SERVICES[name]["command"][1:]
    options = dict(zip(words[::2], words[1::2], strict=True))
    assert options["--maxmemory-policy"] == policy
    limit = SERVICES[name]["deploy"]["resources"]["limits"]["memory"]
    assert bytes_of(options["--maxmemory"]) <= share * bytes_of(limit.replace("m", "Mi"))
    assert options["--appendonly"] == ("yes" if name == "redis" else "no")


def test_health_checks_ask_for_routes() -> None:
    """The API's check asks whether it can take jobs, at an address it serves."""
    (path,) = re.findall(r"127\.0\.0\.1:8080(/[a-z/]+)", str(SERVICES["api"]["healthcheck"]["test"]))
    assert path == "/ready"
    assert path in {route for _, route, _ in ROUTES}


def test_flower_lets_nobody_in_without_credentials(settings: Settings, example: dict[str, str]) -> None:
    """It listens for others than its container, so it wants credentials; there are none until somebody sets them."""
    given = SERVICES["flower"]["environment"]
    assert given["DSPY_JOBS_FLOWER_HOST"] == "0.0.0.0"
    assert given["FLOWER_BASIC_AUTH"] == "${FLOWER_BASIC_AUTH:-}"
    assert example["FLOWER_BASIC_AUTH"] == ""
    assert not any("AUTH" in word for word in SERVICES["flower"]["command"])
    with pytest.raises(ConfigurationError, match="FLOWER_BASIC_AUTH=name:password"):
        credentials(settings.model_copy(update={"flower": FlowerSettings(host=given["DSPY_JOBS_FLOWER_HOST"])}))


def test_flower_is_asked_where_it_answers() -> None:
    """Its check follows the path it is served under; what it remembers is written to its volume."""
    flower = SERVICES["flower"]
    assert f"127.0.0.1:{FlowerSettings().port}${{FLOWER_URL_PREFIX:-}}/healthcheck" in str(
        flower["healthcheck"]["test"]
    )
    assert flower["environment"]["DSPY_JOBS_FLOWER_URL_PREFIX"] == "${FLOWER_URL_PREFIX:-}"
    assert f"flower:{flower['environment']['DSPY_JOBS_DATA_DIR']}" in flower["volumes"]
    assert flower["environment"]["DSPY_JOBS_DATA_DIR"] in (ROOT / "Dockerfile.worker").read_text()


def test_the_autoscaler_is_measured_where_it_answers() -> None:
    """Prometheus scrapes the API and the port that the autoscaler is told to serve its metrics on."""
    scraped = yaml.safe_load((ROOT / "ops" / "prometheus.yml").read_text())["scrape_configs"]
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in scraped}
    command = SERVICES["worker"]["command"]
    port = command[command.index("--metrics-port") + 1]
    assert targets == {"dspy-jobs-api": ["api:8080"], "dspy-jobs-autoscaler": [f"worker:{port}"]}
    assert f"127.0.0.1:{port}/health" in str(SERVICES["worker"]["healthcheck"]["test"])


def test_the_quickstart_script_is_clean() -> None:
    """ShellCheck has nothing to say of it, and it can be run."""
    script = ROOT / "quickstart.sh"
    linter = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run([linter, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert script.stat().st_mode & 0o111


@pytest.mark.parametrize(
    ("version", "is_enough"),
    [
        ("2.23.3", False),
        ("1.29.2", False),
        ("v2.9.0", False),
        ("2.24.0", True),
        ("v2.40.3-desktop.1", True),
        ("5.0.0", True),
        ("dev", True),
        ("", True),
    ],
)
def test_the_quickstart_script_wants_a_compose_that_reads_the_file(
    tmp_path: Path, version: str, is_enough: bool
) -> None:
    """An older one is refused by name before anything is built; one that says no number is left to try."""
    shutil.copy(ROOT / "quickstart.sh", tmp_path)
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\n[ "$1" = compose ] && echo "{version}"\n')
    docker.chmod(0o755)
    (tmp_path / "curl").symlink_to("/bin/true")
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["./quickstart.sh"], cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert done.returncode != 0
    assert ("2.24 or newer is needed" not in done.stderr) is is_enough
    assert ("the docker engine does not run" in done.stderr) is is_enough


def test_the_quickstart_script_says_what_is_missing(tmp_path: Path) -> None:
    """Without docker it says so, and what to do instead; it has written nothing by then."""
    shutil.copy(ROOT / "quickstart.sh", tmp_path)
    for tool in ("bash", "dirname"):
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    done = subprocess.run(
        ["./quickstart.sh"], cwd=tmp_path, env={"PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "quickstart: docker is not installed; without it, `make up`" in done.stderr
    assert not (tmp_path / ".env").exists()
