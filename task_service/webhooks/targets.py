"""Which URLs a webhook may have, and to which addresses the sender connects. Pure functions: no name is looked up here.

Sources: the IANA special-purpose address registries (RFC 6890), of which Python's ipaddress has most; IPv4 within IPv6: RFC 4291 §2.5.5, RFC 6052
(NAT64), RFC 3056 (6to4), RFC 4380 (Teredo).
"""

import contextlib
import ipaddress
import re
import socket
from collections.abc import Sequence
from typing import Final
from urllib.parse import SplitResult, urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LOOPBACK: Final[Sequence[Network]] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
_GLOBAL_UNICAST: Final = ipaddress.ip_network("2000::/3")
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
# ipaddress takes these for global: the anycast address of 6to4 relays, AS112 and AMT, and prefixes of tunnels and of local NAT64.
_SPECIAL: Final = tuple(
    map(ipaddress.ip_network, ("192.88.99.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.175.48.0/24", "64:ff9b:1::/48", "2001::/23", "3fff::/20"))
)
_HOST: Final = re.compile(r"(?=.{1,253}\.?$)([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?)(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?)*\.?")
_IN_BRACKETS: Final = re.compile(r"\[[0-9A-Fa-f:.]+\](:[0-9]*)?")
_NOT_PRINTED: Final = re.compile(r"[\x00-\x20\x7f\\]")


def is_allowed(address: str, allowed: Sequence[Network]) -> bool:
    """Whether the sender may connect to the address, in text: it is global unicast, or in one of the allowed networks.

    Of an IPv6 address that contains an IPv4 address to which its packets go, that address decides.
    """
    try:
        # An address with a zone is link-local, and ipaddress keeps the zone.
        parsed = _unwrapped(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return False
    if any(parsed in network for network in allowed if network.version == parsed.version):
        return True
    if any(parsed in network for network in _SPECIAL if network.version == parsed.version):
        return False
    if parsed.version == 6 and parsed not in _GLOBAL_UNICAST:
        return False
    return parsed.is_global and not (parsed.is_multicast or parsed.is_reserved or parsed.is_unspecified)


def _unwrapped(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and address in _NAT64:
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address if inner is None else inner


def faults(url: str, *, http: bool, allowed: Sequence[Network]) -> str | None:
    """Returns what is wrong with the URL of a webhook, or None. `http`: whether http is accepted too."""
    schemes = ("https", "http") if http else ("https",)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "must be a URL"
    if parts.scheme not in schemes or _NOT_PRINTED.search(url) or not url.lower().startswith(f"{parts.scheme}://"):
        return f"must be an absolute URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}, without blanks and backslashes"
    if "@" in parts.netloc:
        return "must not contain credentials"
    if "#" in url:
        return "must not have a fragment"
    if port == 0:
        return "must have a port of 1 to 65535"
    return _fault_of_host(parts, allowed)


def _fault_of_host(parts: SplitResult, allowed: Sequence[Network]) -> str | None:
    host = parts.hostname or ""
    address = host
    if "[" in parts.netloc:
        # Parsers differ in what they make of anything else.
        if not _IN_BRACKETS.fullmatch(parts.netloc):
            return "must have an IPv6 address in brackets without a zone"
    else:
        if not _HOST.fullmatch(host):
            return "must have a host: a name of letters, digits, hyphens and dots, or an IP address"
        written = _address(host)
        if written is None:
            return None
        if host != written:
            return "must have an IPv4 address as four decimal numbers, or a name"
        address = written
    return None if is_allowed(address, allowed) else "must not have an address that is not public"


def _address(host: str) -> str | None:
    """Returns the IPv4 address that the C library reads in the host, which also takes `127.1`, `0x7f000001`, `2130706433` and `0177.0.0.1`."""
    with contextlib.suppress(OSError):
        return socket.inet_ntoa(socket.inet_aton(host.rstrip(".")))
    return None


def parse_networks(text: str) -> Sequence[Network]:
    """Parses networks such as `10.0.0.0/8`, separated by commas. Raises ValueError."""
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())
