"""What all models share: frozen, strict about unknown fields, errors with the field's path."""

import re
import uuid
from typing import Annotated, Any, Self

import pydantic
from pydantic import (
    AfterValidator,
    PlainSerializer,
    SecretStr,
    SerializationInfo,
    StringConstraints,
)

from kvmdriver import exception

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,62}$"
NAME_REMEDY = "use 1 to 63 letters, digits, '_', '.', '+' or '-', the first a letter or digit"

# XML 1.0 allows no other control character, not even escaped (https://www.w3.org/TR/xml/#charsets).
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def xml_text(value: str) -> str:
    if _NOT_XML.search(value):
        raise ValueError("contains a control character, which XML cannot carry")
    return value


def _absolute_path(value: str) -> str:
    if not value.startswith("/") or ".." in value.split("/"):
        raise ValueError("must be an absolute path without '..'")
    return value


def _mac_address(value: str) -> str:
    value = value.lower()
    if not re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", value):
        raise ValueError("must look like 52:54:00:12:34:56")
    if int(value[:2], 16) & 1:
        raise ValueError("is a multicast address; the first byte must be even")
    return value


# The name of a domain is also part of file names that libvirt makes, hence the narrow alphabet.
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Text = Annotated[str, StringConstraints(max_length=65536), AfterValidator(xml_text)]
ShortText = Annotated[
    str, StringConstraints(min_length=1, max_length=255), AfterValidator(xml_text)
]
Path = Annotated[
    str,
    StringConstraints(min_length=2, max_length=4096),
    AfterValidator(xml_text),
    AfterValidator(_absolute_path),
]
Mac = Annotated[str, AfterValidator(_mac_address)]
Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]


def _uuid(value: str) -> str:
    try:
        return str(uuid.UUID(value))
    except (ValueError, AttributeError, TypeError):
        raise ValueError("must be a UUID such as 6a1b4f0e-93c5-4f0c-9d0a-0b7f3c1b2a44") from None


Uuid = Annotated[str, AfterValidator(_uuid)]


def is_uuid(text: str) -> bool:
    """Whether a text is a UUID in its usual spelling."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _serialize_secret(value: SecretStr, info: SerializationInfo) -> str:
    reveal = bool(info.context and info.context.get("reveal_secrets"))
    return value.get_secret_value() if reveal else str(value)


# Shown as asterisks everywhere but in Model.to_wire().
Secret = Annotated[SecretStr, PlainSerializer(_serialize_secret)]


class Model(pydantic.BaseModel):
    """Base of every model: immutable, refuses fields that it does not know."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

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
        """A copy with other values for some fields, validated again."""
        return type(self).model_validate({**self.__dict__, **fields})


_REMEDIES = {
    "extra_forbidden": "remove the field, or check its spelling",
    "missing": "give the field a value",
}


def invalid_request(error: pydantic.ValidationError, prefix: str = "") -> exception.InvalidRequest:
    """Turn pydantic's report into our error: the first problem, with path, value and remedy."""
    problem = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in problem["loc"])
    value = problem.get("input")
    if isinstance(value, dict | list | tuple | set | Model):
        value = None
    reason = problem["msg"].removeprefix("Value error, ")
    remedy = _REMEDIES.get(problem["type"])
    if problem.get("ctx", {}).get("pattern") == NAME_PATTERN:
        remedy = NAME_REMEDY
    others = error.error_count() - 1
    more = f" (and {others} more problems)" if others else ""
    field = (prefix + path).rstrip(".") or None
    secret = bool(field) and "password" in str(field)
    return exception.InvalidRequest(
        f"{field or 'the request'}: {reason}{more}",
        field=field,
        value=None if secret else value,
        remedy=remedy or "correct the value",
    )
