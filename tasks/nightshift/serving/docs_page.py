"""The page /docs: the OpenAPI description as plain HTML, without scripts, from this server alone."""

from collections.abc import Sequence
from html import escape
from typing import Any, Final

STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem}"
    "code{background:#8882;padding:.1em .3em;border-radius:.2em}table{border-collapse:collapse}"
    "td,th{text-align:left;vertical-align:top;padding:.2em 1em .2em 0;border-bottom:1px solid #8884}"
    ":root{color-scheme:light dark}"
)


def documentation(schema: dict[str, Any]) -> str:
    """HTML of an OpenAPI description: every operation, then every record that is named in it."""
    parts = [
        _operation(method, path, operation)
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    ]
    records = schema.get("components", {}).get("schemas", {})
    parts += [_record(name, record) for name, record in records.items()]
    title = escape(schema["info"]["title"])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body><h1>{title}</h1>"
        f"<p>{escape(schema['info'].get('description', ''))} "
        f'For programs: <a href="openapi.json">openapi.json</a>.</p>{"".join(parts)}</body></html>'
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = [
        (f"?{given['name']}", _type(given["schema"]), given.get("description", ""))
        for given in operation.get("parameters", ())
    ]
    body = operation.get("requestBody", {}).get("content", {})
    parameters += [("body", kind, content["schema"].get("description", "")) for kind, content in body.items()]
    answers = [
        (status, _contents(answer), answer.get("description", ""))
        for status, answer in operation["responses"].items()
    ]
    return (
        f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2>"
        f"<p>{escape(operation.get('description') or operation.get('summary', ''))}</p>"
        f"{_table(('given', 'type', ''), parameters)}{_table(('status', 'answer', ''), answers)}"
    )


def _contents(answer: dict[str, Any]) -> str:
    return ", ".join(
        _type(content.get("schema", {})) or kind for kind, content in answer.get("content", {}).items()
    )


def _record(name: str, record: dict[str, Any]) -> str:
    rows = [
        (field, _type(facts), facts.get("description", "")) for field, facts in record["properties"].items()
    ]
    return (
        f'<h3 id="{escape(name)}">{escape(name)}</h3><p>{escape(record.get("description", ""))}</p>'
        f"{_table(('field', 'type', ''), rows)}"
    )


def _type(schema: dict[str, Any]) -> str:
    """A schema in words: `string`, `list of Prediction`, `number or null`."""
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    return str(schema.get("type", ""))


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
