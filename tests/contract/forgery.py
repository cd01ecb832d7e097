"""Access tokens that no service may accept, each made from a valid one. They are built by hand, because a JWT library rejects most of them."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from auth_service.keys.domain import key_id
from devstack.state import State
from servicekit.access.tokens import CLOCK_SKEW_SECONDS, MAX_LIFETIME_SECONDS
from tests.contract.insider import secrets_of, signing_key
from tests.support.accounts import Account

DAY = 86_400
# Longer than the services accept, but still a header that every server accepts.
LONG = 5_000
REMOVE = object()
# The group order of Ed25519.
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493


@dataclass(frozen=True, slots=True)
class Forge:
    """Everything that an attacker could have: the parts of a valid token, the system's signing key and other secrets, and a key of his own."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    key: Ed25519PrivateKey
    attacker: Ed25519PrivateKey
    refresh_token: str
    service_token: str

    def good(self) -> str:
        """Returns the same token, signed again. It proves that the services reject the other tokens because of their change."""
        return self.signed()

    def signed(self, header: Mapping[str, Any] | None = None, claims: Mapping[str, Any] | None = None, key: Ed25519PrivateKey | None = None) -> str:
        """Returns a changed token; the value REMOVE removes a name. The system's key signs it unless another key is given."""
        data = signing_input(_changed(self.header, header), _changed(self.claims, claims))
        return data + "." + encoded((key or self.key).sign(data.encode()))

    def raw(self, header: bytes, payload: bytes) -> str:
        """Returns a token of arbitrary bytes, signed with the system's key."""
        data = f"{encoded(header)}.{encoded(payload)}"
        return data + "." + encoded(self.key.sign(data.encode()))

    def hmac(self, secret: bytes) -> str:
        """Returns a token signed with HS256 and a secret."""
        data = signing_input(_changed(self.header, {"alg": "HS256"}), self.claims)
        return data + "." + encoded(hmac.digest(secret, data.encode(), hashlib.sha256))

    def unsigned(self, alg: str) -> str:
        """Returns a token without a signature."""
        return signing_input(_changed(self.header, {"alg": alg}), self.claims) + "."

    def es256(self) -> str:
        """Returns a token signed with an attacker's key of another kind (ES256)."""
        data = signing_input(_changed(self.header, {"alg": "ES256"}), self.claims)
        r, s = decode_dss_signature(ec.generate_private_key(ec.SECP256R1()).sign(data.encode(), ec.ECDSA(hashes.SHA256())))
        return data + "." + encoded(r.to_bytes(32, "big") + s.to_bytes(32, "big"))

    @property
    def public_pem(self) -> bytes:
        """The system's public key, which anyone can get, as PEM."""
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def public_raw(self) -> bytes:
        """The system's public key as 32 raw bytes."""
        return self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def attacker_jwk(self) -> dict[str, str]:
        """The attacker's public key in the form of a header."""
        return {"kty": "OKP", "crv": "Ed25519", "x": encoded(self.attacker.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)), "kid": "mine"}


async def forge_of(state: State, account: Account) -> Forge:
    """Returns a Forge from an account's valid token and the secrets of the system."""
    header, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in account.access_token.split(".")[:2])
    key = await signing_key(state, header["kid"])
    return Forge(header, claims, key, Ed25519PrivateKey.generate(), account.refresh_token, secrets_of(state).service_token)


def encoded(data: bytes) -> str:
    """Returns the bytes in base64url, without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signing_input(header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
    """Returns the first two parts of a token."""
    return ".".join(encoded(json.dumps(part).encode()) for part in (header, claims))


def _changed(original: Mapping[str, Any], changes: Mapping[str, Any] | None) -> dict[str, Any]:
    merged = {**original, **(changes or {})}
    return {name: value for name, value in merged.items() if value is not REMOVE}


def _claim(name: str, value: Any) -> Callable[[Forge], str]:
    return lambda forge: forge.signed(claims={name: value})


def _header(name: str, value: Any) -> Callable[[Forge], str]:
    return lambda forge: forge.signed(header={name: value})


def _json(part: Mapping[str, Any]) -> bytes:
    return json.dumps(dict(part)).encode()


def _malleable(token: str) -> str:
    """Returns the token with another signature. It is valid unless the verifier checks that S is below the group order (RFC 8032 §8.4)."""
    data, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    return data + "." + encoded(raw[:32] + (int.from_bytes(raw[32:], "little") + GROUP_ORDER).to_bytes(32, "little"))


def _now(offset: float) -> int:
    return int(time.time() + offset)


def _valid_for(forge: Forge, seconds: int) -> str:
    now = _now(0)
    return forge.signed(claims={"iat": now, "exp": now + seconds})


CLAIMS = ("iss", "aud", "sub", "sid", "iat", "exp", "jti")

# Invalid tokens, sent as `Bearer TOKEN`. The right key signs them unless the name says otherwise.
TOKENS: Mapping[str, Callable[[Forge], str]] = {
    # The key and the algorithm.
    "wrong-key": lambda forge: forge.signed(key=forge.attacker),
    "wrong-key-no-kid": lambda forge: forge.signed({"kid": REMOVE}, key=forge.attacker),
    "alg-none": lambda forge: forge.unsigned("none"),
    "alg-None": lambda forge: forge.unsigned("None"),
    "alg-nOnE": lambda forge: forge.unsigned("nOnE"),
    "alg-empty": lambda forge: forge.unsigned(""),
    "alg-none-but-signed": _header("alg", "none"),
    "alg-missing": _header("alg", REMOVE),
    "alg-null": _header("alg", None),
    "alg-lower-case": _header("alg", "eddsa"),
    "alg-list": _header("alg", ["EdDSA"]),
    "alg-ed448": _header("alg", "Ed448"),
    "alg-rs256": _header("alg", "RS256"),
    "alg-es256": lambda forge: forge.es256(),
    "hs256-public-pem": lambda forge: forge.hmac(forge.public_pem),
    "hs256-public-pem-stripped": lambda forge: forge.hmac(forge.public_pem.strip()),
    "hs256-public-raw": lambda forge: forge.hmac(forge.public_raw),
    "hs256-public-base64": lambda forge: forge.hmac(encoded(forge.public_raw).encode()),
    "hs256-empty": lambda forge: forge.hmac(b""),
    "signature-empty": lambda forge: forge.good().rpartition(".")[0] + ".",
    "signature-zeros": lambda forge: forge.good().rpartition(".")[0] + "." + encoded(bytes(64)),
    "signature-of-another": lambda forge: forge.good().rpartition(".")[0] + "." + forge.signed(claims={"jti": "x"}).rpartition(".")[2],
    "signature-malleable": lambda forge: _malleable(forge.good()),
    "signature-longer": lambda forge: forge.good() + "AAAA",
    # The header.
    "typ-missing": _header("typ", REMOVE),
    "typ-jwt": _header("typ", "JWT"),
    "typ-id-token": _header("typ", "id+jwt"),
    "typ-list": _header("typ", ["at+jwt"]),
    "typ-null": _header("typ", None),
    "kid-missing": _header("kid", REMOVE),
    "kid-unknown": _header("kid", "no-such-key"),
    # The id has the system's own form, but the key was never published.
    "kid-unpublished": lambda forge: forge.signed({"kid": key_id(forge.attacker.public_key())}, key=forge.attacker),
    "kid-empty": _header("kid", ""),
    "kid-number": _header("kid", 0),
    "kid-null": _header("kid", None),
    "kid-list": lambda forge: forge.signed({"kid": [forge.header["kid"]]}),
    "kid-path": _header("kid", "../../../../../../dev/null"),
    "kid-sql": _header("kid", "' OR '1'='1"),
    "kid-url": _header("kid", "http://127.0.0.1:1/jwks.json"),
    "kid-nul": lambda forge: forge.signed({"kid": forge.header["kid"] + "\0"}),
    "crit": _header("crit", ["exp"]),
    "crit-b64": lambda forge: forge.signed({"crit": ["b64"], "b64": False}),
    "crit-empty": _header("crit", []),
    "jku": lambda forge: forge.signed({"jku": "http://127.0.0.1:1/jwks.json", "kid": "mine"}, key=forge.attacker),
    "jku-known-kid": lambda forge: forge.signed({"jku": "http://127.0.0.1:1/jwks.json"}, key=forge.attacker),
    "x5u": lambda forge: forge.signed({"x5u": "http://127.0.0.1:1/cert.pem"}, key=forge.attacker),
    "x5c": lambda forge: forge.signed({"x5c": [encoded(forge.public_raw)]}, key=forge.attacker),
    "jwk": lambda forge: forge.signed({"jwk": forge.attacker_jwk}, key=forge.attacker),
    "jwk-its-kid": lambda forge: forge.signed({"jwk": forge.attacker_jwk, "kid": "mine"}, key=forge.attacker),
    "header-list": lambda forge: forge.raw(b"[]", _json(forge.claims)),
    "header-not-json": lambda forge: forge.raw(b"{", _json(forge.claims)),
    "header-not-utf-8": lambda forge: forge.raw(b"\xff\xfe", _json(forge.claims)),
    "header-deep": lambda forge: forge.raw(b"[" * 1000 + b"]" * 1000, _json(forge.claims)),
    # The claims.
    **{f"{name}-missing": _claim(name, REMOVE) for name in CLAIMS},
    **{f"{name}-null": _claim(name, None) for name in CLAIMS},
    **{f"{name}-list": _claim(name, ["x"]) for name in CLAIMS},
    **{f"{name}-object": _claim(name, {}) for name in CLAIMS},
    **{f"{name}-true": _claim(name, True) for name in CLAIMS},
    "exp-past": lambda forge: forge.signed(claims={"iat": _now(-2 * DAY), "exp": _now(-DAY)}),
    # The services allow no leeway. Two seconds in the past leave a margin for the clock.
    "exp-just-past": lambda forge: forge.signed(claims={"exp": _now(-2)}),
    "exp-two-minutes-past": lambda forge: forge.signed(claims={"exp": _now(-120)}),
    "exp-too-far": lambda forge: forge.signed(claims={"iat": _now(0), "exp": _now(MAX_LIFETIME_SECONDS + 1)}),
    "exp-text": lambda forge: forge.signed(claims={"exp": str(_now(DAY))}),
    "exp-fraction": lambda forge: forge.signed(claims={"exp": _now(DAY) + 0.5}),
    "exp-zero": _claim("exp", 0),
    "exp-negative": _claim("exp", -1),
    "exp-beyond-int64": _claim("exp", 2**63),
    "exp-enormous": _claim("exp", 10**30),
    "exp-beyond-float": _claim("exp", 10**400),
    "iat-future": lambda forge: forge.signed(claims={"iat": _now(DAY), "exp": _now(2 * DAY)}),
    "iat-soon": lambda forge: forge.signed(claims={"iat": _now(CLOCK_SKEW_SECONDS + 10)}),
    "iat-text": lambda forge: forge.signed(claims={"iat": str(_now(0))}),
    "nbf-future": lambda forge: forge.signed(claims={"nbf": _now(DAY)}),
    "nbf-soon": lambda forge: forge.signed(claims={"nbf": _now(30)}),
    "iss-other": _claim("iss", "https://evil.example"),
    "iss-slash": lambda forge: forge.signed(claims={"iss": forge.claims["iss"] + "/"}),
    "iss-empty": _claim("iss", ""),
    "iss-in-a-list": lambda forge: forge.signed(claims={"iss": [forge.claims["iss"]]}),
    "aud-other": _claim("aud", "another-service"),
    "aud-empty": _claim("aud", ""),
    "aud-in-a-list": lambda forge: forge.signed(claims={"aud": [forge.claims["aud"]]}),
    "aud-among-others": lambda forge: forge.signed(claims={"aud": [forge.claims["aud"], "another-service"]}),
    "aud-case": lambda forge: forge.signed(claims={"aud": forge.claims["aud"].upper()}),
    "sub-empty": _claim("sub", ""),
    "sub-no-id": _claim("sub", "admin"),
    "sub-number": _claim("sub", 1),
    "sid-empty": _claim("sid", ""),
    "sid-no-id": _claim("sid", "1"),
    "jti-empty": _claim("jti", ""),
    **{f"scope-{name}": _claim("scope", value) for name, value in {"null": None, "list": ["tasks:read"], "object": {}, "true": True}.items()},
    "name-null": _claim("token_name", None),
    "name-list": _claim("token_name", ["script"]),
    "jti-number": _claim("jti", 1),
    "claims-list": lambda forge: forge.raw(_json(forge.header), b"[]"),
    "claims-text": lambda forge: forge.raw(_json(forge.header), b'"sub"'),
    "claims-null": lambda forge: forge.raw(_json(forge.header), b"null"),
    "claims-empty": lambda forge: forge.raw(_json(forge.header), b""),
    "claims-object-empty": lambda forge: forge.raw(_json(forge.header), b"{}"),
    "claims-not-json": lambda forge: forge.raw(_json(forge.header), b"{"),
    "claims-not-utf-8": lambda forge: forge.raw(_json(forge.header), b'{"sub": "\xff"}'),
    # The form.
    "truncated": lambda forge: forge.good()[:-10],
    "truncated-at-the-signature": lambda forge: forge.good().rpartition(".")[0],
    "truncated-at-the-claims": lambda forge: forge.good().partition(".")[0],
    "dot-before": lambda forge: "." + forge.good(),
    "dot-behind": lambda forge: forge.good() + ".",
    "two-dots": lambda forge: forge.good().replace(".", "..", 1),
    "dots-alone": lambda _: "..",
    "five-parts": lambda forge: forge.good() + ".a.b",
    "padded": lambda forge: ".".join(part + "==" for part in forge.good().split(".")),
    "padded-signature": lambda forge: forge.good() + "==",
    "not-base64": lambda forge: forge.good().replace(".", ".!", 1),
    "space-within": lambda forge: forge.good().replace(".", ". ", 1),
    "in-quotes": lambda forge: f'"{forge.good()}"',
    "twice-with-comma": lambda forge: f"{forge.good()},{forge.good()}",
    "comma-behind": lambda forge: forge.good() + ",",
    "very-long": lambda forge: forge.signed(claims={"filler": "x" * LONG}),
    "very-long-signature": lambda forge: forge.good() + "A" * LONG,
    "json-serialization": lambda forge: json.dumps(dict(zip(("protected", "payload", "signature"), forge.good().split("."), strict=True))),
    "nonsense": lambda _: "nonsense",
    "null": lambda _: "null",
    # Valid credentials of other kinds.
    "refresh-token": lambda forge: forge.refresh_token,
    "service-token": lambda forge: forge.service_token,
}

# Tokens that the system does not make, but that the gateway and the services accept.
GOOD_TOKENS: Mapping[str, Callable[[Forge], str]] = {
    "made-anew": lambda forge: forge.good(),
    "typ-upper-case": _header("typ", "AT+JWT"),
    "scope": _claim("scope", "account:read tasks:write"),
    "scope-unknown-among-others": _claim("scope", "tasks:read all  account:read"),
    "nbf-past": _claim("nbf", 0),
    "headers-that-are-never-looked-at": lambda forge: forge.signed({"jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/", "jwk": {}}),
    # Long enough for one call.
    "exp-soon": lambda forge: forge.signed(claims={"exp": _now(5)}),
    "exp-as-far-as-can-be": lambda forge: _valid_for(forge, MAX_LIFETIME_SECONDS),
    "iat-by-a-clock-that-is-ahead": lambda forge: forge.signed(claims={"iat": _now(CLOCK_SKEW_SECONDS - 10)}),
    "iat-long-ago": lambda forge: forge.signed(claims={"iat": _now(-800), "exp": _now(60)}),
    "claims-of-other-types": lambda forge: forge.signed(claims={"roles": ["a", 1, None], "extra": {"deep": [[{}]]}, "number": 1e300}),
    "claims-not-ascii": lambda forge: forge.raw(_json(forge.header), json.dumps({**forge.claims, "name": "später 𝄞"}, ensure_ascii=False).encode()),
    "claims-in-lines": lambda forge: forge.raw(_json(forge.header), json.dumps(dict(forge.claims), indent=4).encode()),
    "claims-in-another-order": lambda forge: forge.raw(_json(forge.header), _json(dict(reversed(forge.claims.items())))),
    "jti-long": _claim("jti", "x" * 1000),
}
# Ambiguous tokens. Only the system could sign them, and it never does.
ODD_TOKENS: Mapping[str, Callable[[Forge], str]] = {
    "sub-urn": lambda forge: forge.signed(claims={"sub": f"urn:uuid:{forge.claims['sub']}"}),
    "sub-without-hyphens": lambda forge: forge.signed(claims={"sub": forge.claims["sub"].replace("-", "")}),
    "sid-upper-case": lambda forge: forge.signed(claims={"sid": forge.claims["sid"].upper()}),
    "claims-integer-of-400-digits": lambda forge: forge.raw(_json(forge.header), _json(forge.claims)[:-1] + b', "x": 1' + b"0" * 400 + b"}"),
    "header-name-twice": lambda forge: forge.raw(_json(forge.header)[:-1] + b', "alg": "EdDSA"}', _json(forge.claims)),
    "header-utf-16": lambda forge: forge.raw(_json(forge.header).decode().encode("utf-16"), _json(forge.claims)),
    "claim-twice": lambda forge: forge.raw(_json(forge.header), _json(forge.claims)[:-1] + b', "sub": "0190b5a0-0000-7000-8000-000000000001"}'),
    "claims-utf-16": lambda forge: forge.raw(_json(forge.header), _json(forge.claims).decode().encode("utf-16")),
    "claims-bom": lambda forge: forge.raw(_json(forge.header), b"\xef\xbb\xbf" + _json(forge.claims)),
    "claims-nan": lambda forge: forge.raw(_json(forge.header), _json(forge.claims)[:-1] + b', "x": NaN}'),
    "claims-infinite": lambda forge: forge.raw(_json(forge.header), _json(forge.claims)[:-1] + b', "x": 1e999}'),
    "claims-lone-surrogate": lambda forge: forge.raw(_json(forge.header), _json(forge.claims)[:-1] + b', "x": "\\ud800"}'),
    "claims-deep": lambda forge: forge.raw(_json(forge.header), _json(forge.claims)[:-1] + b', "x": ' + b"[" * 900 + b"]" * 900 + b"}"),
    "nbf-text": _claim("nbf", "0"),
    "nbf-true": _claim("nbf", True),
    "nbf-negative": _claim("nbf", -1),
    "nbf-enormous": _claim("nbf", -(10**30)),
}
# What may stand before the token.
GOOD_SCHEMES = ("Bearer ", "bearer ", "BEARER ", "bEaReR ", "Bearer  ", "bearer    ", " Bearer ", "  bearer  ")

# Complete values of the Authorization header.
SCHEMES: Mapping[str, Callable[[Forge], str]] = {
    "basic": lambda forge: "Basic " + base64.b64encode(f"user:{forge.good()}".encode()).decode(),
    "basic-with-token": lambda forge: "Basic " + forge.good(),
    "dpop": lambda forge: "DPoP " + forge.good(),
    "no-scheme": lambda forge: forge.good(),
    "scheme-alone": lambda _: "Bearer",
    "scheme-run-on": lambda forge: "Bearer" + forge.good(),
    "scheme-colon": lambda forge: "Bearer: " + forge.good(),
    "scheme-equals": lambda forge: "Bearer=" + forge.good(),
    "scheme-twice": lambda forge: "Bearer Bearer " + forge.good(),
    "words-behind": lambda forge: "Bearer " + forge.good() + " realm=x",
    "two-schemes": lambda forge: f"Basic dTpw, Bearer {forge.good()}",
}
