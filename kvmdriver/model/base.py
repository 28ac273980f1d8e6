"""What all models share: frozen, strict about unknown fields, errors with the field's path."""

import re
import unicodedata
import uuid
from typing import Annotated, Any, Self

import pydantic
from pydantic import (
    AfterValidator,
    GetCoreSchemaHandler,
    PlainSerializer,
    SecretStr,
    SerializationInfo,
    StringConstraints,
    ValidatorFunctionWrapHandler,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from kvmdriver import exception

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,62}$"
NAME_REMEDY = "use 1 to 63 letters, digits, '_', '.', '+' or '-', the first a letter or digit"

# XML 1.0 allows no other control character, not even escaped (https://www.w3.org/TR/xml/#charsets).
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# The longest name of a file and the longest path in bytes (limits.h: NAME_MAX, and PATH_MAX
# without its closing NUL). Every file system of Linux that holds disks has the first limit.
_NAME_MAX = 255
_PATH_MAX = 4095

# The largest number that libvirt's XML and QEMU's monitor take: a signed 64-bit integer.
MAX_INTEGER = 2**63 - 1


def xml_text(value: str) -> str:
    """Refuse what XML cannot carry; line breaks and tabs are allowed."""
    if _NOT_XML.search(value):
        raise ValueError("contains a control character, which XML cannot carry")
    return value


def one_line(value: str) -> str:
    """Refuse control characters, line breaks and tabs included, and what XML cannot carry."""
    # Unicode has line breaks of its own beside those of ASCII: NEL (a control character, Cc), and
    # the line and paragraph separators (Zl and Zp), where str.splitlines also breaks lines.
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in value):
        raise ValueError("contains a control character or a line break")
    return xml_text(value)


def _absolute_path(value: str) -> str:
    parts = value.split("/")
    if not value.startswith("/") or ".." in parts:
        raise ValueError("must be an absolute path without '..'")
    if any(len(part.encode()) > _NAME_MAX for part in parts):
        raise ValueError(f"has a part of more than {_NAME_MAX} bytes between two slashes")
    if len(value.encode()) > _PATH_MAX:
        raise ValueError(f"has more than {_PATH_MAX} bytes")
    return value


def _mac_address(value: str) -> str:
    value = value.lower()
    if not re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", value):
        raise ValueError("must look like 52:54:00:12:34:56")
    if int(value[:2], 16) & 1:
        raise ValueError("is a multicast address; the first byte must be even")
    return value


class Private:
    """Marks a field whose value no error repeats: a secret, user data, or a long document.

    The mark has to be the last one of an ``Annotated``, so that it also covers the limits of length
    that stand before it.
    """

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(_hide_input, handler(source))


def _hide_input(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(value)
    except pydantic.ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        raise PydanticCustomError(
            "private", "{reason}", {"reason": _reason(problem), "private": True}
        ) from None


# The name of a domain is also part of file names that libvirt makes, hence the narrow alphabet.
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Text = Annotated[str, StringConstraints(max_length=65536), AfterValidator(xml_text), Private()]
ShortText = Annotated[
    str, StringConstraints(min_length=1, max_length=255), AfterValidator(one_line)
]
Path = Annotated[
    str,
    StringConstraints(min_length=2, max_length=_PATH_MAX),
    AfterValidator(one_line),
    AfterValidator(_absolute_path),
]
Mac = Annotated[str, StringConstraints(max_length=17), AfterValidator(_mac_address)]
Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]

_UUID = re.compile(
    "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32}", re.IGNORECASE
)


def as_uuid(text: str) -> str | None:
    """Return the UUID that a text is, in its usual spelling; None where it is none.

    Only the usual spelling and 32 hexadecimal digits count, in upper or lower case. ``uuid.UUID``
    takes more for a UUID: hyphens anywhere, braces, underscores between digits.
    """
    return str(uuid.UUID(text)) if _UUID.fullmatch(text) else None


def _uuid(value: str) -> str:
    found = as_uuid(value)
    if found is None:
        raise ValueError("must be a UUID such as 6a1b4f0e-93c5-4f0c-9d0a-0b7f3c1b2a44")
    return found


Uuid = Annotated[str, StringConstraints(max_length=36), AfterValidator(_uuid)]


def is_uuid(text: str) -> bool:
    """Return whether a text is a UUID in its usual spelling."""
    return as_uuid(text) == text


def check_new_name(name: str) -> None:
    """Refuse a name that somebody could take for the UUID of another instance.

    :raises kvmdriver.exception.InvalidRequest: ``uuid.UUID`` takes the name for a UUID.
    """
    try:
        uuid.UUID(name)
    except ValueError:
        return
    raise exception.InvalidRequest(
        "an instance's name may not be a UUID, in no spelling",
        field="name",
        value=name,
        remedy="choose a name that is not a UUID; the instance has a UUID beside its name",
    )


def _serialize_secret(value: SecretStr, info: SerializationInfo) -> str:
    reveal = bool(info.context and info.context.get("reveal_secrets"))
    return value.get_secret_value() if reveal else str(value)


# Shown as asterisks everywhere but in Model.to_wire(). A field adds its own limits and Private().
Secret = Annotated[SecretStr, PlainSerializer(_serialize_secret)]


def _be_exact(schema: Any) -> None:
    """Have numbers and booleans taken as such only: no ``"1"``, ``True`` or ``-0.0`` for a number.

    An integer without limits of its own gets those of 64 bits.
    """
    if isinstance(schema, dict):
        if schema.get("type") in ("int", "float", "bool"):
            schema["strict"] = True
        if schema.get("type") == "int":
            if not {"le", "lt"} & set(schema):
                schema["le"] = MAX_INTEGER
            if not {"ge", "gt"} & set(schema):
                schema["ge"] = -MAX_INTEGER
        for part in schema.values():
            _be_exact(part)
    elif isinstance(schema, list | tuple):
        for part in schema:
            _be_exact(part)


class Model(pydantic.BaseModel):
    """Base of every model: immutable, refuses fields that it does not know."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        schema = handler(source)
        _be_exact(schema)
        return schema

    @classmethod
    def parse(cls, data: Any, *, prefix: str = "") -> Self:
        """Make a model from untrusted plain values.

        :param data: a mapping, as it came from the wire or the command line.
        :param prefix: put before the path of the offending field, e.g. ``instance.``.
        :raises kvmdriver.exception.InvalidRequest: names the first offending field.
        """
        try:
            return cls.model_validate(data)
        except pydantic.ValidationError as error:
            raise invalid_request(error, prefix) from None
        except RecursionError:
            raise exception.InvalidRequest(
                "the request is nested too deeply", field=prefix.rstrip(".") or None
            ) from None

    def to_wire(self) -> dict[str, Any]:
        """Plain JSON values, secrets included: what is sent over the bus. Never log it."""
        return self.model_dump(mode="json", exclude_none=True, context={"reveal_secrets": True})

    def changed(self, **fields: Any) -> Self:
        """Return a copy with other values for some fields, validated again."""
        return type(self).model_validate({**self.__dict__, **fields})


_REMEDIES = {
    "extra_forbidden": "remove the field, or check its spelling",
    "missing": "give the field a value",
    "union_tag_invalid": "use one of the values that the message names",
}
# The value of a field that is not known may be anything, a password with a misspelled name too; so
# may a text in the place of an object or a list.
_UNKNOWN = {
    "extra_forbidden", "model_type", "model_attributes_type", "tuple_type", "list_type", "dict_type",
}  # fmt: skip


def _reason(problem: Any) -> str:
    if problem["type"] == "union_tag_invalid":
        # pydantic's message repeats the value
        return f"{problem['ctx']['discriminator']} must be {problem['ctx']['expected_tags']}"
    return str(problem["msg"]).removeprefix("Value error, ")


def invalid_request(error: pydantic.ValidationError, prefix: str = "") -> exception.InvalidRequest:
    """Turn pydantic's report into our error: the first problem, with path, value and remedy.

    The value is told where it is a number or a short text of a field that is not ``Private``.
    """
    problem = error.errors(include_url=False)[0]
    context = problem.get("ctx", {})
    path = ".".join(str(part) for part in problem["loc"])
    value = problem.get("input")
    secret = context.get("private") or problem["type"] in _UNKNOWN
    if secret or not isinstance(value, str | int | float):
        value = None
    elif isinstance(value, int) and abs(value) > MAX_INTEGER:
        value = "a number of more than 64 bits"  # Python does not print those of 4300 digits
    remedy = _REMEDIES.get(problem["type"])
    if context.get("pattern") == NAME_PATTERN:
        remedy = NAME_REMEDY
    others = error.error_count() - 1
    more = f" (and {others} more problems)" if others else ""
    field = exception.shorten((prefix + path).rstrip(".")) or None
    return exception.InvalidRequest(
        f"{field or 'the request'}: {_reason(problem)}{more}",
        field=field,
        value=value,
        remedy=remedy or "correct the value",
    )
