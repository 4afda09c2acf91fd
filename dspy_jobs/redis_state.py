"""What a Redis server says of itself, and what of it endangers jobs: pure functions over the answer to `INFO`.

The API's health and `dspy-jobs doctor` judge by these same rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from redis.exceptions import AuthenticationError, BusyLoadingError, NoPermissionError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeout

#: Share of its memory from which a server is nearly full.
NEARLY_FULL = 0.8
#: Share of its connections from which few are left.
_FEW_CONNECTIONS = 0.9
#: The policy under which nothing is thrown away.
NO_EVICTION = "noeviction"


@dataclass(frozen=True, slots=True)
class RedisState:
    """A server at one moment. 0 is no limit, or not known."""

    run_id: str
    """Names the running server: equal for two databases of one."""
    version: str
    is_primary: bool
    used_bytes: int
    limit_bytes: int
    host_bytes: int
    """Memory of its machine."""
    policy: str
    """What it throws away when full."""
    keeps_log: bool
    """Whether it writes an append-only file."""
    log_is_written: bool
    """Whether its last write to that file went well."""
    connections: int
    most_connections: int


@dataclass(frozen=True, slots=True)
class Complaint:
    """Something wrong with a server."""

    what: str
    remedy: str
    stops_work: bool = False
    """Whether nothing can be stored while it lasts."""
    is_mistake: bool = False
    """Whether it is a wrong setting, which will do harm one day."""


def redis_state(info: Mapping[str, Any]) -> RedisState:
    """The state in what redis-py makes of the answer to `INFO`."""
    return RedisState(
        run_id=str(info.get("run_id", "")),
        version=str(info.get("redis_version", "")),
        is_primary=info.get("role", "master") == "master",
        used_bytes=int(info.get("used_memory", 0)),
        limit_bytes=int(info.get("maxmemory", 0)),
        host_bytes=int(info.get("total_system_memory", 0)),
        policy=str(info.get("maxmemory_policy", NO_EVICTION)),
        keeps_log=bool(info.get("aof_enabled", 0)),
        log_is_written=info.get("aof_last_write_status", "ok") == "ok",
        connections=int(info.get("connected_clients", 0)),
        most_connections=int(info.get("maxclients", 0)),
    )


def complaints_about_ledger(state: RedisState) -> Iterator[Complaint]:
    """What is wrong with the server of queue, jobs and results: it must take writes and never throw anything away."""
    if not state.is_primary:
        yield Complaint("is a replica and takes no writes", "point REDIS_URL at the primary", stops_work=True)
    if not state.log_is_written:
        yield Complaint(
            "could not write its append-only file and refuses writes", "make room on its disk", stops_work=True
        )
    if state.policy != NO_EVICTION:
        yield Complaint(
            f"has the maxmemory-policy {state.policy}: when full it throws jobs away",
            f"`redis-cli config set maxmemory-policy {NO_EVICTION}`, and the same in its configuration",
            is_mistake=True,
        )
    yield from about_memory(state)
    if state.connections > _FEW_CONNECTIONS * state.most_connections > 0:
        used = f"{state.connections} of its {state.most_connections} connections are in use"
        yield Complaint(used, "raise its maxclients, or find out who opens so many (`redis-cli client list`)")


def about_memory(state: RedisState) -> Iterator[Complaint]:
    """What is wrong with the memory a server has left."""
    limit, whose = (state.limit_bytes, "maxmemory") if state.limit_bytes else (state.host_bytes, "machine's memory")
    if not limit or state.used_bytes < NEARLY_FULL * limit:
        return
    remedy = "raise maxmemory, shorten jobs.retention_seconds or erase results that were read"
    if state.limit_bytes and state.used_bytes >= limit:
        yield Complaint("is full (maxmemory) and refuses writes", remedy, stops_work=True)
    else:
        yield Complaint(f"uses {state.used_bytes / limit:.0%} of its {whose}", remedy)


def complaints_about_cache(state: RedisState) -> Iterator[Complaint]:
    """What is wrong with a server that only the response cache uses: it may throw away whatever it likes."""
    if not state.is_primary:
        yield Complaint("is a replica and stores nothing", "point CACHE_URL at the primary")
    if state.limit_bytes and state.policy == NO_EVICTION and state.used_bytes > NEARLY_FULL * state.limit_bytes:
        yield Complaint(
            f"uses {state.used_bytes / state.limit_bytes:.0%} of its memory and evicts nothing",
            "`redis-cli config set maxmemory-policy allkeys-lru`, and the same in its configuration",
        )


def complaint_about_failure(error: Exception, variable: str) -> Complaint:
    """What it means that a server whose address `variable` holds could not be asked. Names no address."""
    if isinstance(error, BusyLoadingError):
        return Complaint("is loading its data", "wait; nothing is lost", stops_work=True)
    if isinstance(error, AuthenticationError | NoPermissionError):
        return Complaint("refuses the user or password", f"correct them in {variable}", stops_work=True)
    if isinstance(error, ResponseError):
        refusal = str(error).partition(" ")[0]
        return Complaint(f"refuses what it is asked ({refusal})", "look at its log and its version", stops_work=True)
    if isinstance(error, RedisTimeout | TimeoutError):
        return Complaint("takes too long to answer", HANGS_REMEDY, stops_work=True)
    if isinstance(error, RedisError | OSError):
        return Complaint("cannot be reached", f"start it, or correct {variable}", stops_work=True)
    raise error


#: What to do about a server that takes the line and says nothing.
HANGS_REMEDY = "look whether it hangs (`redis-cli ping`, its log, its disk, its processor) and restart it if so"
