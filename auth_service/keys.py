"""The Ed25519 key that access tokens are signed with, and its public half as a JWK set (RFC 7517, RFC 8037)."""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key


class SigningKeys:
    """The key in use. Also the KeySource (servicekit.tokens) by which this service verifies its own tokens."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self.current = key
        self.current_id = key_id(key.public_key())

    async def find(self, kid: str) -> Ed25519PublicKey | None:
        """See KeySource.find."""
        return self.current.public_key() if kid == self.current_id else None

    def jwks(self) -> Mapping[str, Any]:
        """All keys that a good token can be signed with, as a JWK set."""
        return {"keys": [{**_thumbprint_members(self.current.public_key()), "kid": self.current_id, "alg": "EdDSA", "use": "sig"}]}


def parse_signing_key(pem: str) -> Ed25519PrivateKey:
    """The key in a PKCS 8 PEM text. Raises ValueError for anything else."""
    # A variable in a file or a chart often has its line ends as the two characters \n.
    key = load_pem_private_key(pem.replace("\\n", "\n").encode(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("not an Ed25519 key")  # noqa: TRY004 - it is what is in the text that is wrong
    return key


def key_id(key: Ed25519PublicKey) -> str:
    """The key's thumbprint (RFC 7638): the same key has the same id everywhere."""
    return _base64url(hashlib.sha256(orjson.dumps(_thumbprint_members(key), option=orjson.OPT_SORT_KEYS)).digest())


def _thumbprint_members(key: Ed25519PublicKey) -> dict[str, str]:
    return {"crv": "Ed25519", "kty": "OKP", "x": _base64url(key.public_bytes(Encoding.Raw, PublicFormat.Raw))}


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
