"""The signing key: its id, its public form, and what is no key."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from auth_service.keys import SigningKeys, key_id, parse_signing_key
from servicekit.jwks import public_keys


def test_the_key_id_is_the_thumbprint_of_rfc_8037() -> None:
    """The example of RFC 8037, appendix A.3."""
    key = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo="))
    assert key_id(key) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


async def test_the_public_set_is_what_verifiers_read() -> None:
    keys = SigningKeys(Ed25519PrivateKey.generate())
    published = public_keys(keys.jwks())
    assert list(published) == [keys.current_id]
    assert published[keys.current_id] == await keys.find(keys.current_id)
    assert await keys.find("another") is None
    assert "d" not in keys.jwks()["keys"][0]


def test_a_key_is_read_from_pem_also_with_escaped_line_ends() -> None:
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    for text in (pem, pem.replace("\n", "\\n")):
        assert parse_signing_key(text).private_bytes_raw() == key.private_bytes_raw()


def test_what_is_no_ed25519_key_is_refused() -> None:
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    for text in ("", "nonsense", other):
        with pytest.raises(ValueError):
            parse_signing_key(text)
