"""The digest of what a request asked for, by which the same request is recognised again."""

import concurrent.futures
import hashlib
import hmac
import json
import secrets

from kvmdriver.model import Instance
from kvmdriver.model.instance import SECRETS

_SALT_BYTES = 16
# One thread for all: the allocator keeps what scrypt takes for each thread that has called it.
_THREAD = concurrent.futures.ThreadPoolExecutor(1, "secret-digest")


def digest_of(request: Instance) -> str:
    """Return the digest for the record, secrets included: ``DIGEST`` or ``DIGEST:SALT:SECRET DIGEST``.

    The record can be read by everybody who may read the domain's XML, and passwords can be short: a
    plain digest of one would be found by trying. So secrets are hashed apart, with a salt of this
    instance and by a function that is slow on purpose (scrypt, RFC 7914).
    """
    salt = secrets.token_bytes(_SALT_BYTES)
    return f"{_plain(request)}:{salt.hex()}:{_slow(request, salt)}"


def is_digest_of(digest: str | None, request: Instance) -> bool:
    """Return whether a digest is that of a request.

    One that has no secret part was made by an older version, which did not compare secrets.
    """
    if digest is None:
        return False
    plain, _colon, rest = digest.partition(":")
    if plain != _plain(request):
        return False
    salt, _colon, hashed = rest.partition(":")
    return not rest or hmac.compare_digest(hashed, _slow(request, bytes.fromhex(salt)))


def _plain(request: Instance) -> str:
    return hashlib.sha256(request.record_json().encode()).hexdigest()


def _slow(request: Instance, salt: bytes) -> str:
    named = request.model_dump(
        mode="json",
        exclude_none=True,
        include=SECRETS,
        context={"reveal_secrets": True},
    )
    text = json.dumps(named, sort_keys=True)
    # 16 MiB and some 50 ms: nothing for a creation, much for somebody who tries passwords
    digest = _THREAD.submit(hashlib.scrypt, text.encode(), salt=salt, n=2**14, r=8, p=1, dklen=32)
    return digest.result().hex()
