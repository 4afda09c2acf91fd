"""The Celery message (task protocol 2) that carries job ids, as a template the Lua scripts fill.

Written by hand, so that the API needs no Celery, and with no more in it than a worker needs, for a queued job is to
cost Redis little; a test feeds it to an unmodified Celery worker. Messages hold nothing but ids, so nothing personal
stands in the broker or in Flower.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from dspy_jobs import names


def _template() -> str:
    message = {
        "body": "@BODY@",
        "content-type": "application/json",
        "headers": {"task": names.TASK, "id": "@ID@"},
        "properties": {"delivery_tag": "@TAG@"},
    }
    return orjson.dumps(message).decode().replace("@BODY@", "[[[@ARGS@]],{},{}]")


#: Slots: `@ID@` the Celery task id, `@ARGS@` the job ids (quoted, comma-separated), `@TAG@` a unique number.
MESSAGE_TEMPLATE = _template()


def message_id(ids: Sequence[str]) -> str:
    """The Celery task id of a message for these jobs, as the Lua scripts make it: the only job's own, or a chunk's."""
    return ids[0] if len(ids) == 1 else f"chunk-{len(ids)}-{ids[0]}"


def job_ids(message: bytes) -> list[str]:
    """The job ids a message made from the template carries."""
    ids: list[str] = orjson.loads(orjson.loads(message)["body"])[0][0]
    return ids
