"""`GET /docs`: the OpenAPI document for people, as one page that loads nothing from elsewhere."""

from __future__ import annotations

from html import escape
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
details{border:1px solid #ddd;border-radius:6px;margin:.4rem 0;padding:.4rem .8rem}
summary{cursor:pointer} pre{background:#f6f6f6;padding:.6rem;overflow:auto;font-size:.85rem}
code{font-size:.95em} .method{display:inline-block;width:4.5rem;font-weight:700}
@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}pre{background:#242424}details{border-color:#444}}
"""


async def get_docs(request: Request) -> Response:
    """The page."""
    return HTMLResponse(_page(request.app.openapi()))


def _page(document: dict[str, Any]) -> str:
    info = document["info"]
    operations = "".join(
        _operation(method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(info["title"])}</title>'
        f"<style>{_STYLE}</style><h1>{escape(info['title'])} {escape(info['version'])}</h1>"
        f'<p>{escape(info["summary"])} For machines: <a href="/openapi.json">/openapi.json</a>.</p>{operations}'
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = "".join(
        f"<li><code>{escape(p['name'])}</code> ({p['in']}): {escape(p['description'])}</li>"
        for p in operation["parameters"]
    )
    answers = "".join(_answer(status, answer) for status, answer in operation["responses"].items())
    return (
        f'<details><summary><span class="method">{method.upper()}</span><code>{escape(path)}</code> '
        f"{escape(operation['summary'])}</summary><ul>{parameters}</ul>"
        f"{_content(operation.get('requestBody', {}))}<h4>Answers</h4>{answers}</details>"
    )


def _answer(status: str, answer: dict[str, Any]) -> str:
    title = f"<code>{status}</code> {escape(answer['description'])}"
    return f"<details><summary>{title}</summary>{_content(answer)}</details>"


def _content(part: dict[str, Any]) -> str:
    return "".join(
        f"<p><code>{escape(media)}</code></p><pre>{escape(_text(example))}</pre>"
        for media, content in part.get("content", {}).items()
        for example in _examples(content)
    )


def _examples(content: dict[str, Any]) -> list[Any]:
    if "example" in content:
        return [content["example"]]
    return [example["value"] for example in content.get("examples", {}).values()]


def _text(example: Any) -> str:
    return example if isinstance(example, str) else orjson.dumps(example, option=orjson.OPT_INDENT_2).decode()
