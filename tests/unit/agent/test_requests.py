"""Requests of the wire: everything in them has limits."""

import inspect
import unittest
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kvmdriver import exception
from kvmdriver.agent import requests

KINDS = [
    kind
    for _name, kind in inspect.getmembers(requests, inspect.isclass)
    if issubclass(kind, requests.Request)
]


def parts(
    schema: dict[str, Any], definitions: dict[str, Any], path: str, seen: frozenset[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every part of a JSON schema with its path."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name not in seen:
            yield from parts(definitions[name], definitions, path, seen | {name})
        return
    yield path, schema
    below = [(path, part) for key in ("anyOf", "oneOf", "allOf") for part in schema.get(key, ())]
    below += [(f"{path}[]", part) for part in schema.get("prefixItems", ())]
    below += [(f"{path}[]", schema["items"])] if isinstance(schema.get("items"), dict) else []
    below += [(f"{path}.{name}", part) for name, part in schema.get("properties", {}).items()]
    for where, part in below:
        yield from parts(part, definitions, where, seen)


LIMITS = {
    "integer": ({"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"}),
    "number": ({"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"}),
    "string": ({"maxLength", "pattern", "enum", "const"},),
    "array": ({"maxItems"},),
}
# its bytes are counted by a validator, which a schema cannot show
COUNTED = ("vnc_password",)


class LimitsTest(unittest.TestCase):
    def test_everything_has_a_limit(self) -> None:
        self.assertGreater(len(KINDS), 25)
        found = []
        for kind in KINDS:
            schema = kind.model_json_schema()
            for path, part in parts(schema, schema.get("$defs", {}), kind.__name__, frozenset()):
                needed = LIMITS.get(part.get("type", ""), ())
                fixed = {"const", "enum"} & set(part) or path.endswith(COUNTED)
                if not fixed and not all(names & set(part) for names in needed):
                    found.append(path)
        self.assertEqual([], found, "no limit of length or size")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats()
    | st.text(st.characters(exclude_categories=())) | st.just(10**4000),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
)  # fmt: skip


class RubbishTest(unittest.TestCase):
    @settings(deadline=None)
    @given(ANYTHING)
    def test_rubbish_in_any_field_is_our_error(self, value: object) -> None:
        for kind in KINDS:
            for name in kind.model_fields:
                try:
                    kind.parse({name: value})
                except exception.InvalidRequest as error:
                    self.assertLessEqual(len(error.message), 2000)
                    str(error.to_dict()).encode()
