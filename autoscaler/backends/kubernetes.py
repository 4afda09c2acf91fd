"""Scales a Deployment through its scale subresource, in place of KEDA where there is none.

Written against the API's documentation and tested against a small server that answers as the API does. No real
cluster was available: try it with ``--once`` first. Where KEDA runs, use KEDA and not this: two would fight.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from autoscaler.fleet import BackendError, Fleet, Unattended
from autoscaler.scaled_object import ScaleTarget

#: Where a pod finds its service account's ``token``, ``ca.crt`` and ``namespace``.
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
#: The API server's address as pods see it.
IN_CLUSTER_URL = "https://kubernetes.default.svc"
_TIMEOUT_SECONDS = 3.0


class KubernetesScale(Unattended):
    """One Deployment or StatefulSet. Kubernetes chooses which pods go, idle or not."""

    def __init__(
        self,
        target: ScaleTarget,
        namespace: str | None = None,
        url: str = IN_CLUSTER_URL,
        account: Path = SERVICE_ACCOUNT,
    ) -> None:
        """``account`` is the folder of the service account's files; its namespace is used where none is given.

        Raises:
            BackendError: the account's files cannot be read, or the target is of a kind that has no scale.
        """
        if target.api_version != "apps/v1" or target.kind not in ("Deployment", "StatefulSet"):
            raise BackendError(f"{target.api_version} {target.kind} cannot be scaled here; name a Deployment")
        self._account = account
        namespace = namespace or self._file("namespace")
        self._path = f"/apis/apps/v1/namespaces/{namespace}/{target.kind.lower()}s/{target.name}"
        certificate = account / "ca.crt"
        verify: Any = httpx.create_ssl_context(verify=str(certificate)) if certificate.is_file() else True
        self._client = httpx.Client(base_url=url, verify=verify, timeout=_TIMEOUT_SECONDS, trust_env=False)

    def fleet(self) -> Fleet:
        """The size asked for and the pods that are ready; the API does not know which ones drain."""
        workload = self._ask("GET", self._path)
        try:
            return Fleet(int(workload["spec"]["replicas"]), int(workload.get("status", {}).get("readyReplicas", 0)))
        except (KeyError, TypeError, ValueError) as error:
            raise BackendError(f"{self._path}: the answer is no workload: {error!r}") from error

    def scale(self, replicas: int) -> None:
        """Patch the scale subresource."""
        self._ask("PATCH", f"{self._path}/scale", {"spec": {"replicas": replicas}})

    def _ask(self, method: str, path: str, patch: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self._file('token')}"}  # anew each time: tokens are replaced hourly
        if patch is not None:
            headers["Content-Type"] = "application/merge-patch+json"
        try:
            answer = self._client.request(method, path, json=patch, headers=headers)
            answer.raise_for_status()
            return answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise BackendError(f"{method} {path}: {error}") from error

    def _file(self, name: str) -> str:
        try:
            return (self._account / name).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise BackendError(f"{self._account / name}: {error.strerror}; this runs in a pod") from error
