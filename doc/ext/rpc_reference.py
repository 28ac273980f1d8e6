"""Sphinx directives that describe the agent's RPC from the code: methods, payloads and errors.

``rpc-methods`` lists every method of the agent with its arguments, ``rpc-payloads`` every model that
these and the answers are made of, ``rpc-errors`` every error with its code.
"""

import inspect
import json
import typing
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from kvmdriver import exception
from kvmdriver.agent.client import ComputeAPI
from kvmdriver.agent.endpoint import Endpoint
from kvmdriver.model.base import Model

_LANES = {
    "changes": "Changes something: topic ``kvmdriver``.",
    "reads": "Changes nothing: topic ``kvmdriver_reads``.",
    "peers": "For the agents of other hosts only: topic ``kvmdriver_peers``.",
}
_LIMITS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "pattern": "pattern ``{}``",
}


def methods() -> list[tuple[str, Any]]:
    """Return the agent's RPC methods in the order of their names: those that have a lane."""
    found = inspect.getmembers(Endpoint, lambda member: hasattr(member, "lane"))
    return [(name, method) for name, method in found if not name.startswith("_")]


def answer_of(name: str) -> tuple[type[Model] | None, str]:
    """Return what the Python client returns from a method: its model, if it has one, and its name."""
    call = getattr(ComputeAPI, name, None)
    if call is None:
        return None, ""
    hint = typing.get_type_hints(call).get("return")
    for candidate in (hint, *typing.get_args(hint)):
        if inspect.isclass(candidate) and issubclass(candidate, Model):
            several = typing.get_origin(hint) in (list, tuple)
            return candidate, "a list of " if several else ""
    if hint is None or hint is type(None):
        return None, "nothing"
    return None, f"``{getattr(hint, '__name__', hint) if inspect.isclass(hint) else hint}``"


def payloads() -> dict[str, dict[str, Any]]:
    """Return the JSON schemas of all models in requests and answers, by name."""
    found: dict[str, dict[str, Any]] = {}
    for name, method in methods():
        found |= method.request_type.model_json_schema().get("$defs", {})
        answer, _ = answer_of(name)
        if answer is not None:
            schema = answer.model_json_schema(mode="serialization")
            for part, content in {**schema.pop("$defs", {}), answer.__name__: schema}.items():
                found.setdefault(part, content)
    return dict(sorted(found.items()))


def _type(schema: dict[str, Any]) -> str:
    """Return a schema's type in words, with links to other models."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f":ref:`{name} <rpc-{name.lower()}>`"
    if "enum" in schema:
        return " | ".join(f"``{value}``" for value in schema["enum"])
    if "const" in schema:
        return f"``{schema['const']}``"
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(_type(part) for part in schema[key]))
    if schema.get("type") == "array":
        items = schema.get("items")
        return f"list of {_type(items)}" if items else "list"
    if schema.get("format") == "password":
        return "string (secret)"
    return str(schema.get("type", "any"))


def _limits(schema: dict[str, Any]) -> Iterator[str]:
    for key, words in _LIMITS.items():
        if key in schema:
            yield words.format(schema[key])
    for part in schema.get("anyOf", ()):
        yield from _limits(part)


def _fields(schema: dict[str, Any]) -> list[str]:
    """Return the table of an object's fields, as lines of reStructuredText."""
    properties = schema.get("properties", {})
    if not properties:
        return ["No fields.", ""]
    required = schema.get("required", ())
    lines = [
        ".. list-table::",
        "   :header-rows: 1",
        "   :widths: 20 30 15 35",
        "",
        "   * - field",
        "     - type",
        "     - default",
        "     - meaning and limits",
    ]
    for name, field in properties.items():
        default = "required" if name in required else _default(field)
        said = [field["description"]] if "description" in field else []
        said += list(_limits(field))
        lines += [
            f"   * - ``{name}``",
            f"     - {_type(field)}",
            f"     - {default}",
            f"     - {_one_line('; '.join(said))}",
        ]
    return [*lines, ""]


def _default(field: dict[str, Any]) -> str:
    """Return what a field is when it is absent, as it stands in JSON."""
    value = field.get("default")
    if isinstance(value, dict) and value:
        return "all of its fields at their defaults"
    return f"``{json.dumps(value)}``"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _heading(title: str, label: str | None = None) -> list[str]:
    above = [f".. _{label}:", ""] if label else []
    return [*above, title, "-" * len(title), ""]


class _Generated(SphinxDirective):
    """A directive whose content is reStructuredText made from the code."""

    def text(self) -> Iterator[str]:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes("\n".join(self.text()), allow_section_headings=True)


class RpcMethods(_Generated):
    def text(self) -> Iterator[str]:
        for name, method in methods():
            yield from _heading(name)
            call = getattr(ComputeAPI, name, None)
            if call is not None and call.__doc__:
                yield inspect.cleandoc(call.__doc__).split("\n\n")[0]
                yield ""
            yield f"{_LANES[method.lane]}"
            answer, words = answer_of(name)
            if answer is not None:
                answer_name = answer.__name__
                yield f"Answer: {words}:ref:`{answer_name} <rpc-{answer_name.lower()}>`."
            elif words:
                yield f"The Python client returns {words}."
            yield ""
            yield from _fields(method.request_type.model_json_schema())


class RpcPayloads(_Generated):
    def text(self) -> Iterator[str]:
        for name, schema in payloads().items():
            yield from _heading(name, f"rpc-{name.lower()}")
            if "description" in schema:
                yield schema["description"]
                yield ""
            if "enum" in schema or "properties" not in schema:
                yield f"{_type(schema)}"
                yield ""
            else:
                yield from _fields(schema)


class RpcErrors(_Generated):
    def text(self) -> Iterator[str]:
        yield ".. list-table::"
        yield "   :header-rows: 1"
        yield ""
        yield "   * - code"
        yield "     - class"
        yield "     - meaning"
        classes = {
            error.code: error
            for error in vars(exception).values()
            if inspect.isclass(error) and issubclass(error, exception.KVMDriverError)
        }
        for code, error in sorted(classes.items()):
            yield f"   * - ``{code}``"
            yield f"     - ``{error.__name__}``"
            yield f"     - {_one_line(inspect.cleandoc(error.__doc__ or '').split(chr(10) * 2)[0])}"


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("rpc-methods", RpcMethods)
    app.add_directive("rpc-payloads", RpcPayloads)
    app.add_directive("rpc-errors", RpcErrors)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
