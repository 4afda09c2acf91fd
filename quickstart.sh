#!/usr/bin/env bash
# From a fresh clone to a first answer: builds the images, starts everything, submits one job, says where things are.
set -euo pipefail
cd "$(dirname "$0")"

say() { printf '%s\n' "$*"; }
fail() {
  printf 'quickstart: %s\n' "$*" >&2
  exit 1
}

command -v docker >/dev/null || fail "docker is not installed; without it, \`make up\` starts everything but the monitoring"
command -v curl >/dev/null || fail "curl is not installed"
compose="$(docker compose version --short 2>/dev/null)" || fail "docker has no compose plugin, version 2.24 or newer"
IFS=. read -r major minor _ <<<"${compose#v}"
case "$major.$minor" in *[!0-9.]* | .* | *.) ;; *) # what gives no number is not ours to judge
  [ "$major" -gt 2 ] || { [ "$major" -eq 2 ] && [ "$minor" -ge 24 ]; } ||
    fail "docker compose is version $compose, and 2.24 or newer is needed"
  ;;
esac
docker info >/dev/null 2>&1 || fail "the docker engine does not run, or you may not use it"

if [ ! -e .env ]; then
  password="$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')"
  (umask 077 && sed "s/^FLOWER_BASIC_AUTH=$/FLOWER_BASIC_AUTH=admin:$password/" .env.example >.env)
  say "Wrote .env; set your provider's key there."
fi
# What a variable of .env comes to, or the default; the environment wins, as it does for docker compose.
setting() {
  local value="${!1:-$(sed -n "s/^$1=//p" .env | tail -n 1)}"
  printf '%s' "${value:-$2}"
}
[ -n "$(setting FLOWER_BASIC_AUTH "")" ] || fail "set FLOWER_BASIC_AUTH=name:password in .env: Flower needs it"
api="http://$(setting PUBLISH_ADDRESS 127.0.0.1):$(setting API_PORT 8080)"

# Containers read what is mounted as users of their own; in a clone made with umask 077 only its owner may.
chmod -R go+rX ops k8s/worker-scaledobject.yaml

REVISION="$(git rev-parse HEAD 2>/dev/null || printf unknown)"
export REVISION
docker compose build
docker compose up --detach --wait --wait-timeout 300 ||
  fail "something did not become healthy; see: docker compose ps --all, docker compose logs"

say "Submitting a job:"
job="$(curl --fail --silent --show-error --header 'content-type: application/json' \
  --data '{"program": "qa", "inputs": {"question": "What is a dead letter?"}}' "$api/v1/jobs" |
  sed -n 's/.*"id":"\(job_[a-z0-9]*\)".*/\1/p')" || true # said by curl; what to do is said here
[ -n "$job" ] || fail "the API took no job; see: docker compose logs api"
for _ in 1 2 3 4 5 6; do
  answer="$(curl --fail --silent --show-error --header 'prefer: wait=10' "$api/v1/jobs/$job")" || true
  case "$answer" in *'"status":"succeeded"'* | *'"status":"failed"'*) break ;; esac
done
say "$answer"
case "$answer" in *'"status":"succeeded"'*) ;; *) fail "it did not succeed; see: docker compose logs worker" ;; esac

say ""
say "  API         $api   (docs: $api/docs)"
say "  Flower      http://$(setting PUBLISH_ADDRESS 127.0.0.1):$(setting FLOWER_PORT 5555)$(setting FLOWER_URL_PREFIX "")   (FLOWER_BASIC_AUTH of .env)"
say "  Prometheus  http://$(setting PUBLISH_ADDRESS 127.0.0.1):$(setting PROMETHEUS_PORT 9090)"
say "  Grafana     http://$(setting PUBLISH_ADDRESS 127.0.0.1):$(setting GRAFANA_PORT 3000)   (admin, GRAFANA_PASSWORD of .env)"
say ""
say "  docker compose logs --follow worker    what happens"
say "  make compose-down                      stops everything; data stays in volumes"
