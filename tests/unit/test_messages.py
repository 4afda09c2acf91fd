"""The Celery message as a template: what Celery needs is there, and only ids are filled in."""

from __future__ import annotations

import orjson

from dspy_jobs import names
from dspy_jobs.messages import MESSAGE_TEMPLATE, job_ids


def _filled(name: str, *ids: str) -> dict[str, object]:
    quoted = ",".join(f'\\"{job_id}\\"' for job_id in ids)
    filled = MESSAGE_TEMPLATE.replace("@ID@", name).replace("@TAG@", "7").replace("@ARGS@", quoted)
    message = orjson.loads(filled)
    assert isinstance(message, dict)
    return message


def test_the_only_argument_is_a_list_of_ids() -> None:
    """The body is Celery's `[args, kwargs, embed]`."""
    body = _filled("job_1", "job_1", "job_2")["body"]
    assert isinstance(body, str)
    assert orjson.loads(body) == [[["job_1", "job_2"]], {}, {}]
    assert job_ids(orjson.dumps(_filled("job_1", "job_1", "job_2"))) == ["job_1", "job_2"]


def test_the_headers_name_the_task_and_an_id_alone() -> None:
    """A queued job is to cost Redis little: nothing stands there that a worker can do without."""
    assert _filled("job_1", "job_1")["headers"] == {"task": names.TASK, "id": "job_1"}


def test_the_template_has_each_slot_where_lua_fills_it() -> None:
    """No slot is left over and none of Lua's pattern letters can be mistaken for one."""
    assert {slot: MESSAGE_TEMPLATE.count(slot) for slot in ("@ID@", "@ARGS@", "@TAG@")} == {
        "@ID@": 1,
        "@ARGS@": 1,
        "@TAG@": 1,
    }
    assert MESSAGE_TEMPLATE.count("@") == 6
