"""The Celery message (task protocol 2) that carries job ids, as a template the Lua scripts fill.

Written by hand so that the API needs no Celery; a test feeds it to an unmodified Celery worker. Messages hold
nothing but ids, so nothing personal stands in the broker or in Flower.
"""

from __future__ import annotations

import orjson

from dspy_jobs import names

_HEADERS = {
    "lang": "py",
    "task": names.TASK,
    "id": "@ID@",
    "root_id": "@ID@",
    "parent_id": None,
    "group": None,
    "shadow": None,
    "eta": None,
    "expires": None,
    "retries": 0,
    "timelimit": [None, None],
    "argsrepr": "@ID@",
    "kwargsrepr": "",
    "origin": "dspy-jobs",
    "ignore_result": True,
}


def _template() -> str:
    body = '[[[@ARGS@]],{},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'
    message = {
        "body": "@BODY@",
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": _HEADERS,
        "properties": {
            "correlation_id": "@ID@",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": names.TASK},
            "priority": 0,
            "body_encoding": "utf-8",
            "delivery_tag": "dj-@TAG@",
        },
    }
    return orjson.dumps(message).decode().replace("@BODY@", body.replace('"', '\\"'))


#: Slots: `@ID@` the Celery task id, `@ARGS@` the job ids (quoted, comma-separated), `@TAG@` a unique number.
MESSAGE_TEMPLATE = _template()
