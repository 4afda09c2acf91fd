"""The manifests in k8s/: each by its schema, and together by what no schema says."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

from api.__main__ import _DRAIN_SECONDS as API_DRAIN_SECONDS
from api.app import ROUTES
from autoscaler.scaled_object import read_scaled_object
from dspy_jobs import __version__, names
from dspy_jobs.measures import FAMILIES
from dspy_jobs.settings import ConfigurationError, Settings, load_settings
from dspy_jobs.states import PRIORITY_STEPS
from tests import keda_schema
from tests.cluster import (
    BASE,
    BEHIND_INGRESS,
    NAMESPACE,
    OVERLAY,
    bytes_of,
    container,
    files,
    labels_of_pods,
    load,
    named,
    objects,
    pod,
    references,
    workloads,
)
from tests.conftest import ROOT
from worker.chunk import STUCK_SECONDS
from worker.flower import credentials

#: The oldest Kubernetes meant to work, and the newest whose schemas the validator carries.
VERSIONS = ("1.31", "1.37")
#: Kinds of operators. Of the second group no schema is at hand: their manifests are checked by hand below.
KEDA, MONITORING = "keda.sh/", "monitoring.coreos.com/"
PATHS = {path for method, path, _ in ROUTES if method == "GET"}
#: What pods may not be without, by Kubernetes' restricted standard.
HARDENED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
#: Seconds a signal, a last write and a slow machine may take beyond what a process promises.
SPARE_SECONDS = 5


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """What the processes in the cluster read."""
    path = tmp_path / "dspy-jobs.toml"
    path.write_text(named("ConfigMap", "configuration")["data"]["dspy-jobs.toml"])
    return load_settings(path, {})


def _of_kubernetes(manifest: dict[str, Any]) -> bool:
    return not manifest["apiVersion"].startswith((KEDA, MONITORING))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_kubernetes_takes_the_manifest(path: Path, version: str) -> None:
    """Every object of a built-in kind satisfies that version's schema, with no unknown field."""
    manifest = load(path)
    if _of_kubernetes(manifest):
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("change", [{"spec.replica": 1}, {"spec.template.spec.terminationGracePeriodSeconds": "330"}])
def test_the_schemas_refuse_mistakes(change: dict[str, Any]) -> None:
    """A misspelt field and a wrong type are refused, so that the test above says something."""
    manifest = copy.deepcopy(named("Deployment", "worker"))
    for place, value in change.items():
        *parents, last = place.split(".")
        holder = manifest
        for parent in parents:
            holder = holder[parent]
        holder[last] = value
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("kind", ["ScaledObject", "TriggerAuthentication"])
def test_keda_takes_the_manifest(kind: str) -> None:
    """KEDA's own objects satisfy its CRDs and its triggers' metadata."""
    found = objects(kind)
    assert found
    assert [problem for manifest in found for problem in keda_schema.problems(manifest)] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("minReplicaCount", "minReplicas"),
        ("pollingInterval: 5", "pollingInterval: 0"),
        ('targetValue: "128"', "targetValue: 128"),
        ("valueLocation", "valueLokation"),
        ("timeout: 3s", "format: jsn"),
        ("listName", "lisName"),
        ("type: metrics-api", "type: metrics-apis"),
        ("value: 4", "value: 0.5"),
    ],
)
def test_kedas_schemas_refuse_mistakes(old: str, new: str) -> None:
    """Each of these mistakes is found."""
    text = (BASE / "worker-scaledobject.yaml").read_text()
    assert old in text
    assert keda_schema.problems(yaml.safe_load(text.replace(old, new)))


def test_our_own_autoscaler_takes_the_very_same_file() -> None:
    """The local autoscaler obeys the file that KEDA obeys."""
    read = read_scaled_object((BASE / "worker-scaledobject.yaml").read_text())
    assert (read.target.kind, read.target.name) == ("Deployment", "worker")
    assert read.scaling.behavior is not None
    assert read.scaling.active_fallback is not None


def test_a_file_holds_one_object_and_no_two_are_the_same() -> None:
    """One object a file; every object stands in the namespace and is found by its name."""
    assert all(len(list(yaml.safe_load_all(path.read_text()))) == 1 for path in files())
    identities = Counter((o["kind"], o["metadata"]["name"]) for o in objects())
    assert [identity for identity, times in identities.items() if times > 1] == []
    others = {o["metadata"].get("namespace") for o in objects() if o["kind"] != "Namespace"}
    assert others == {NAMESPACE} == {named("Namespace", NAMESPACE)["metadata"]["name"]}


@pytest.mark.parametrize(
    ("folder", "left_out"),
    [(BASE, {"secret.example.yaml"}), (BASE / "monitoring", set()), (OVERLAY, set()), (BEHIND_INGRESS, set())],
)
def test_kustomize_is_told_of_every_file(folder: Path, left_out: set[str]) -> None:
    """No manifest is forgotten. The example's secret is left out: it would put its values over the real ones."""
    listed = set(load(folder / "kustomization.yaml")["resources"])
    on_disk = {path.name for path in files() if path.parent == folder}
    assert {name for name in listed if name.endswith(".yaml")} == on_disk - left_out


def test_kustomize_builds_the_example() -> None:
    """The overlay's whole result is valid, and its changes have come through; where there is a kubectl."""
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl here")
    done = subprocess.run(["kubectl", "kustomize", str(OVERLAY)], capture_output=True, text=True, check=True)
    built = list(yaml.safe_load_all(done.stdout))
    assert len(built) == len([found for found in objects() if not found["apiVersion"].startswith(MONITORING)]) - 1
    for manifest in filter(_of_kubernetes, built):
        kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)
    (scaled,) = (manifest for manifest in built if manifest["kind"] == "ScaledObject")
    assert keda_schema.problems(scaled) == []
    assert read_scaled_object(yaml.safe_dump(scaled)).scaling.min_replica_count == 1
    images = {image for manifest in built for image in references(manifest, "image")}
    assert {image for image in images if "dspy-jobs" in image} == {
        f"example/dspy-jobs-{part}:{__version__}" for part in ("api", "worker")
    }


@pytest.mark.parametrize("workload", workloads(), ids=lambda workload: workload["metadata"]["name"])
def test_every_pod_is_hardened(workload: dict[str, Any]) -> None:
    """Nobody is root, nothing is written but to volumes, no capability, no token, no variables of other services."""
    inside, only = pod(workload), container(workload)
    assert only["securityContext"] == HARDENED
    assert inside["securityContext"]["runAsNonRoot"] is True
    assert inside["securityContext"]["runAsUser"] >= 100
    assert inside["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert inside["automountServiceAccountToken"] is False
    assert inside["enableServiceLinks"] is False
    assert {"requests", "limits"} == set(only["resources"])
    assert all({"cpu", "memory"} == set(amounts) for amounts in only["resources"].values())


@pytest.mark.parametrize("workload", workloads(), ids=lambda workload: workload["metadata"]["name"])
def test_what_a_pod_names_exists(workload: dict[str, Any]) -> None:
    """Ports of its probes, its volumes and what is in them, keys of the secret, and its selector's labels."""
    inside, only = pod(workload), container(workload)
    claims = [claim["metadata"] for claim in workload["spec"].get("volumeClaimTemplates", [])]
    volumes = inside.get("volumes", [])
    assert {mount["name"] for mount in only["volumeMounts"]} == {volume["name"] for volume in [*volumes, *claims]}
    for mapped in references(volumes, "configMap"):
        named("ConfigMap", mapped["name"])
    wanted = {reference["key"] for reference in references(workload, "secretKeyRef")}
    wanted |= {item["key"] for secret in references(volumes, "secret") for item in secret["items"]}
    assert wanted <= set(named("Secret", "secrets")["stringData"])
    assert {probe["port"] for probe in references(only, "httpGet")} <= {port["name"] for port in only.get("ports", [])}
    selector = workload["spec"].get("selector", {"matchLabels": labels_of_pods(workload)})
    assert selector["matchLabels"] == labels_of_pods(workload) == workload["metadata"]["labels"]


def test_services_find_their_pods_and_ports() -> None:
    """Each service selects one workload and a port that its container has."""
    for service in objects("Service"):
        selected = [w for w in workloads() if service["spec"]["selector"].items() <= labels_of_pods(w).items()]
        (workload,) = selected
        (port,) = service["spec"]["ports"]
        (inside,) = container(workload)["ports"]
        assert (port["targetPort"], port["port"]) == (inside["name"], inside["containerPort"])


def test_whoever_scales_or_guards_names_a_workload() -> None:
    """The two that scale, the disruption budget, the ingress and the monitor have targets."""
    scaled = [
        *[h["spec"]["scaleTargetRef"]["name"] for h in objects("HorizontalPodAutoscaler")],
        *[s["spec"]["scaleTargetRef"]["name"] for s in objects("ScaledObject")],
    ]
    assert Counter(scaled) == {"api": 1, "worker": 1}
    assert not any("replicas" in named("Deployment", name)["spec"] for name in scaled)
    assert named("PodDisruptionBudget", "api")["spec"]["selector"]["matchLabels"] == labels_of_pods(
        named("Deployment", "api")
    )
    for ingress in objects("Ingress"):
        (backend,) = references(ingress, "backend")
        (port,) = named("Service", backend["service"]["name"])["spec"]["ports"]
        assert backend["service"]["port"]["name"] == port["name"]
    monitor = named("ServiceMonitor", "api")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= named("Service", "api")["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] == named("Service", "api")["spec"]["ports"][0]["name"]


def test_every_address_asked_over_http_is_a_route() -> None:
    """Probes, the ScaledObject and Prometheus ask for what the API serves."""
    api = container(named("Deployment", "api"))
    paths = {probe["path"] for probe in references(api, "httpGet")}
    assert paths == {"/health/live", "/ready"}
    assert api["livenessProbe"]["httpGet"]["path"] == "/health/live", "a restart mends no Redis"
    assert api["readinessProbe"]["httpGet"]["path"] == "/ready"
    url = urlsplit(_trigger("work")["metadata"]["url"])
    service = named("Service", "api")
    assert url.netloc == f"{service['metadata']['name']}.{NAMESPACE}.svc:{service['spec']['ports'][0]['port']}"
    scraped = {endpoint["path"] for endpoint in named("ServiceMonitor", "api")["spec"]["endpoints"]}
    assert {url.path, *paths, *scraped} <= PATHS


def test_workers_are_measured_where_they_answer(settings: Settings) -> None:
    """Their port is open to Prometheus, and not to themselves alone; what the API says for all is taken from there."""
    (port,) = container(named("Deployment", "worker"))["ports"]
    assert (settings.worker.metrics_host, settings.worker.metrics_port) == ("0.0.0.0", port["containerPort"])
    monitor = named("PodMonitor", "worker")["spec"]
    assert monitor["selector"]["matchLabels"] == labels_of_pods(named("Deployment", "worker"))
    (endpoint,) = monitor["podMetricsEndpoints"]
    (ingress,) = named("NetworkPolicy", "worker")["spec"]["ingress"]
    assert endpoint["port"] == port["name"] == ingress["ports"][0]["port"]
    (kept,) = endpoint["metricRelabelings"]
    exported = ["dspy_worker_threads", *(family.name for family in FAMILIES)]
    taken = [name for name in exported if re.fullmatch(kept["regex"], name)]
    assert (kept["action"], taken) == ("keep", ["dspy_worker_threads"])


def test_the_example_needs_no_operator_that_is_not_named(tmp_path: Path) -> None:
    """Of monitoring nothing is applied unless somebody takes the comments away, and then it can be built."""
    monitoring = "../../k8s/monitoring"
    assert monitoring not in load(OVERLAY / "kustomization.yaml")["components"]
    text = (OVERLAY / "kustomization.yaml").read_text()
    text = re.sub(r"(?m)^( *)# (- \.\.|- target:|  patch:)", r"\1\2", text)
    assert monitoring in yaml.safe_load(text)["components"]
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl here")
    shutil.copytree(BASE, tmp_path / "k8s")
    copied = shutil.copytree(OVERLAY, tmp_path / "deploy" / "mine")
    (copied / "kustomization.yaml").write_text(text)
    done = subprocess.run(["kubectl", "kustomize", str(copied)], capture_output=True, text=True, check=True)
    built = list(yaml.safe_load_all(done.stdout))
    watched = [found for found in built if found["apiVersion"].startswith(MONITORING)]
    assert {found["metadata"]["labels"]["release"] for found in watched} == {"kube-prometheus-stack"}
    assert len(built) == len(objects()) - 1


def test_a_stateful_set_is_named_by_a_service_without_an_address() -> None:
    """Kubernetes wants such a one for the names of the pods; others ask for an address that stays."""
    redis = named("StatefulSet", "redis")
    governing = named("Service", redis["spec"]["serviceName"])
    assert governing["spec"]["clusterIP"] == "None"
    assert governing["spec"]["selector"] == labels_of_pods(redis)
    assert "clusterIP" not in named("Service", "redis")["spec"]


def test_names_are_asked_for_wherever_a_clusters_dns_is() -> None:
    """A node's own cache and OpenShift's DNS are in no namespace called kube-system, and the latter on another port."""
    (rule,) = named("NetworkPolicy", "default")["spec"]["egress"]
    assert "to" not in rule
    assert {(port["port"], port["protocol"]) for port in rule["ports"]} == {
        (port, protocol) for port in (53, 5353) for protocol in ("UDP", "TCP")
    }


def test_what_a_cluster_is_kept_like_stays() -> None:
    """A job that deletes itself would be made again for ever by whoever keeps the cluster like the repository."""
    assert "ttlSecondsAfterFinished" not in named("Job", "describe")["spec"]


def test_the_namespace_is_named_where_keda_asks() -> None:
    """KEDA asks from a namespace of its own, so its addresses name ours, and the file says so."""
    triggers = named("ScaledObject", "worker")["spec"]["triggers"]
    hosts = {urlsplit(t["metadata"].get("url") or f"//{t['metadata']['address']}").hostname or "" for t in triggers}
    assert {host.split(".", 1)[1] for host in hosts} == {f"{NAMESPACE}.svc"}
    assert "in another namespace change all of them" in (BASE / "worker-scaledobject.yaml").read_text()


def _trigger(name: str) -> dict[str, Any]:
    triggers = named("ScaledObject", "worker")["spec"]["triggers"]
    found: dict[str, Any] = next(trigger for trigger in triggers if trigger["name"] == name)
    return found


def test_the_scaled_object_counts_what_is_there(settings: Settings) -> None:
    """Without the API KEDA counts the waiting jobs of every model and the workers, where the store has them."""
    scaled = named("ScaledObject", "worker")["spec"]
    lists = {t["name"]: t["metadata"]["listName"] for t in scaled["triggers"] if t["type"] == "redis"}
    waiting = {
        names.queue_waiting(names.queue(model), step) for model in settings.models for step in PRIORITY_STEPS.values()
    }
    consumers = {names.queue_workers(names.queue(model)) for model in settings.models}
    assert lists.pop("workers") in consumers, "the list of all workers holds draining and dead ones as well"
    assert set(lists.values()) == waiting
    formula = scaled["advanced"]["scalingModifiers"]["formula"]
    assert set(re.findall(r"[a-z_]+", formula)) - {"max"} == {trigger["name"] for trigger in scaled["triggers"]}
    service = named("Service", "redis")
    address = f"{service['metadata']['name']}.{NAMESPACE}.svc:{service['spec']['ports'][0]['port']}"
    assert {t["metadata"]["address"] for t in scaled["triggers"] if t["type"] == "redis"} == {address}


def test_a_workers_share_is_its_number_of_threads(settings: Settings) -> None:
    """The targets in the ScaledObject are the worker's concurrency, in the cluster and in the file for laptops."""
    text = (BASE / "worker-scaledobject.yaml").read_text()
    modifiers = yaml.safe_load(text)["spec"]["advanced"]["scalingModifiers"]
    assert modifiers["target"] == _trigger("work")["metadata"]["targetValue"] == str(settings.worker.concurrency)
    assert f"{settings.worker.concurrency} * workers" in modifiers["formula"]
    assert load_settings(ROOT / "dspy-jobs.toml", {}).worker.concurrency == settings.worker.concurrency


def test_keda_has_the_password() -> None:
    """The triggers' authentication exists and takes the password from a key of the secret."""
    used = {reference["name"] for reference in references(named("ScaledObject", "worker"), "authenticationRef")}
    assert used == {manifest["metadata"]["name"] for manifest in objects("TriggerAuthentication")}
    (target,) = named("TriggerAuthentication", "redis")["spec"]["secretTargetRef"]
    assert target["key"] in named("Secret", target["name"])["stringData"]


def test_no_job_is_cut_short(settings: Settings) -> None:
    """Longest job, and what it takes to give up a stuck one < drain < grace of the pod; and the API's likewise."""
    longest = settings.jobs.max_timeout_seconds
    grace = pod(named("Deployment", "worker"))["terminationGracePeriodSeconds"]
    steps = [settings.jobs.timeout_seconds, longest, longest + STUCK_SECONDS, settings.worker.drain_seconds]
    steps += [settings.worker.drain_seconds + SPARE_SECONDS, grace]
    assert all(before <= after for before, after in pairwise(steps)), steps
    api = named("Deployment", "api")
    slept = container(api)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert slept + API_DRAIN_SECONDS + SPARE_SECONDS <= pod(api)["terminationGracePeriodSeconds"]


def test_updates_take_nothing_away() -> None:
    """A pod that serves is stopped only when another is ready."""
    for name in ("api", "worker"):
        strategy = named("Deployment", name)["spec"]["strategy"]
        assert (strategy["type"], strategy["rollingUpdate"]["maxUnavailable"]) == ("RollingUpdate", 0)


def test_the_worker_is_probed_where_it_writes(settings: Settings) -> None:
    """The probes read the file the settings name, in a volume that can be written to; liveness asks no readiness."""
    worker = container(named("Deployment", "worker"))
    assert settings.worker.heartbeat_file is not None
    file = str(settings.worker.heartbeat_file)
    commands = {name: worker[name]["exec"]["command"] for name in ("livenessProbe", "readinessProbe", "startupProbe")}
    assert commands["livenessProbe"] == ["python", "-m", "worker.probe", file]
    assert commands["readinessProbe"] == commands["startupProbe"] == [*commands["livenessProbe"], "--ready"]
    (volume,) = (
        m["name"] for m in worker["volumeMounts"] if m["mountPath"] == str(settings.worker.heartbeat_file.parent)
    )
    assert {"name": volume, "emptyDir": {}} in pod(named("Deployment", "worker"))["volumes"]


def test_flower_lets_nobody_in_without_credentials(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """It listens for others than its pod; what the example's secret holds, in the file it is told of, lets it start."""
    flower = container(named("Deployment", "flower"))
    variables = {variable["name"]: variable.get("value") for variable in flower["env"]}
    path = Path(variables["FLOWER_BASIC_AUTH_FILE"])
    assert str(path.parent) in {mount["mountPath"] for mount in flower["volumeMounts"]}
    with pytest.raises(ConfigurationError, match="so others can reach Flower"):
        credentials(settings)
    monkeypatch.setenv("FLOWER_BASIC_AUTH", named("Secret", "secrets")["stringData"][path.name])
    assert credentials(settings) == ["admin:replaceme"]


def test_flower_keeps_what_it_remembers() -> None:
    """Its data folder is a volume that outlives the pod, and no two pods write to it."""
    flower = named("Deployment", "flower")
    (folder,) = (v["value"] for v in container(flower)["env"] if v["name"] == "DSPY_JOBS_DATA_DIR")
    (volume,) = (m["name"] for m in container(flower)["volumeMounts"] if m["mountPath"] == folder)
    (claim,) = (v["persistentVolumeClaim"]["claimName"] for v in pod(flower)["volumes"] if v["name"] == volume)
    assert named("PersistentVolumeClaim", claim)
    assert (flower["spec"]["replicas"], flower["spec"]["strategy"]["type"]) == (1, "Recreate")


def test_flower_can_be_had_under_the_apis_host() -> None:
    """The ingress, the probes and Flower itself agree on the path; the controller that reaches the API reaches it."""
    api, flower = (references(named("Ingress", name), "rules") for name in ("api", "flower"))
    (of_api,), (of_flower,) = next(api), next(flower)
    assert of_flower["host"] == of_api["host"]
    (path,) = (entry["path"] for entry in of_flower["http"]["paths"])
    patch = container(load(BEHIND_INGRESS / "deployment.patch.yaml"))
    assert {"name": "DSPY_JOBS_FLOWER_URL_PREFIX", "value": path} in patch["env"]
    assert {probe["path"] for probe in references(patch, "httpGet")} == {f"{path}/healthcheck"}
    (rule,) = load(BEHIND_INGRESS / "network.patch.yaml")["spec"]["ingress"]
    assert rule["from"][0] in named("NetworkPolicy", "api")["spec"]["ingress"][0]["from"]


def test_secrets_agree_with_one_another() -> None:
    """The example's addresses hold its password and the services' names; the key is where the settings look for it."""
    secret = named("Secret", "secrets")["stringData"]
    for key, name in (("redis-url", "redis"), ("cache-url", "cache")):
        url = urlsplit(secret[key])
        (port,) = named("Service", name)["spec"]["ports"]
        assert (url.hostname, url.port, url.password) == (name, port["port"], secret["redis-password"])


def test_every_variable_is_read_by_somebody(settings: Settings) -> None:
    """Variables of our processes are settings or secrets the settings name; others belong to the tool that runs."""
    of_tools = {"redis": {"REDIS_PASSWORD", "REDISCLI_AUTH"}, "cache": {"REDIS_PASSWORD", "REDISCLI_AUTH"}}
    of_tools["flower"] = {"DSPY_JOBS_CONFIG", "DSPY_JOBS_DATA_DIR", "REDIS_URL", "FLOWER_BASIC_AUTH_FILE"}
    keys = {f"{model.api_key_env}_FILE" for model in settings.models.values()}
    for workload in workloads():
        name = workload["metadata"]["name"]
        variables = {variable["name"] for variable in container(workload)["env"]}
        ours = {"DSPY_JOBS_CONFIG", "REDIS_URL", "CACHE_URL"} | (keys if name in ("worker", "describe") else set())
        ours |= {"SENTRY_DSN", "OTEL_EXPORTER_OTLP_HEADERS"} if name in ("api", "worker") else set()
        assert variables == of_tools.get(name, ours), name


def test_images_are_of_this_version() -> None:
    """Our images bear the version of the code; all who run the worker's image run the same one."""
    images = {w["metadata"]["name"]: container(w)["image"] for w in workloads()}
    assert images["api"] == f"dspy-jobs-api:{__version__}"
    assert {images[name] for name in ("worker", "describe", "flower")} == {f"dspy-jobs-worker:{__version__}"}
    assert images["redis"] == images["cache"]
    assert not [image for image in images.values() if "." in image.partition("/")[0] and "/" in image]


#: Resident memory measured at most, in MiB: docs/performance.md, and the tables a tokenizer loads.
MEASURED = {"api": 77, "worker": 135 + 80}


def test_memory_is_what_was_measured(settings: Settings) -> None:
    """Requests hold what was measured and the worker's own cache, limits half as much again at least."""
    measured = {**MEASURED, "worker": MEASURED["worker"] + settings.cache.memory_bytes / 2**20}
    for name, mib in measured.items():
        resources = container(named("Deployment", name))["resources"]
        assert bytes_of(resources["requests"]["memory"]) >= mib * 2**20
        assert bytes_of(resources["limits"]["memory"]) >= 1.5 * mib * 2**20


@pytest.mark.parametrize(
    ("kind", "name", "policy", "appendonly", "share"),
    [("StatefulSet", "redis", "noeviction", "yes", 0.5), ("Deployment", "cache", "allkeys-lru", "no", 0.75)],
)
def test_redis_never_outgrows_its_container(kind: str, name: str, policy: str, appendonly: str, share: float) -> None:
    """The ledger never evicts and is kept on disk, the cache evicts; each leaves room for its own work."""
    lines = (line.split(maxsplit=1) for line in named("ConfigMap", name)["data"]["redis.conf"].splitlines())
    configured = {words[0]: words[1] for words in lines if words and words[0] != "#"}
    assert (configured["maxmemory-policy"], configured["appendonly"]) == (policy, appendonly)
    limit = bytes_of(container(named(kind, name))["resources"]["limits"]["memory"])
    assert bytes_of(configured["maxmemory"]) <= share * limit
    if appendonly == "yes":
        assert configured["appendfsync"] == "everysec"


def test_every_pod_may_reach_what_it_needs_and_no_more() -> None:
    """Each policy finds a workload; who sends to a Redis is let in by it; nobody is without the default."""
    default = named("NetworkPolicy", "default")["spec"]
    assert default["podSelector"] == {}
    assert set(default["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in default
    policies = {
        p["metadata"]["name"]: p["spec"] for p in objects("NetworkPolicy") if p["metadata"]["name"] != "default"
    }
    by_name = {w["metadata"]["name"]: labels_of_pods(w) for w in workloads()}
    assert {name: p["podSelector"]["matchLabels"] for name, p in policies.items()} == by_name
    for sender, policy in policies.items():
        for receiver in _peers(policy.get("egress", []), "to", by_name):
            assert sender in _peers(policies[receiver]["ingress"], "from", by_name), (sender, receiver)
    for receiver, policy in policies.items():
        for sender in _peers(policy.get("ingress", []), "from", by_name):
            assert receiver in _peers(policies[sender]["egress"], "to", by_name), (sender, receiver)
    keda = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "keda"}}}
    assert all(keda in policies[name]["ingress"][0]["from"] for name in ("api", "redis"))


def _peers(rules: list[dict[str, Any]], side: str, by_name: dict[str, dict[str, str]]) -> set[str]:
    selected = [peer["podSelector"]["matchLabels"] for rule in rules for peer in rule[side] if "podSelector" in peer]
    return {name for labels in selected for name, own in by_name.items() if labels == own}


def test_the_configuration_is_complete(settings: Settings) -> None:
    """It is read as the processes read it; the API listens where its container says, for others than itself."""
    (port,) = container(named("Deployment", "api"))["ports"]
    assert (settings.api.host, settings.api.port) == ("0.0.0.0", port["containerPort"])
    assert settings.log_format == "json"
    assert settings.programs
