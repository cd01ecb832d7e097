"""Which URLs a webhook may have, and which addresses the sender connects to."""

import ipaddress

import pytest

from task_service.webhooks.targets import LOOPBACK, faults, is_allowed, parse_networks

PRIVATE = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254"),
    *("100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"),
    *("192.88.99.1", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1", "2001:db8::1", "100::1", "5f00::1"),
    # IPv4 within IPv6: mapped, compatible, NAT64, 6to4, Teredo, and local NAT64.
    *("::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::10.0.0.1", "2002:7f00:1::", "2002:a9fe:a9fe::1"),
    *("2001:0:4136:e378:8000:63bf:3fff:fdd2", "64:ff9b:1::1", "", "localhost", "1.2.3", "1.2.3.4.5"),
]
PUBLIC = ["1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::1"]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert not is_allowed(address, ())


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_allowed(address: str) -> None:
    assert is_allowed(address, ())


def test_networks_can_be_allowed() -> None:
    networks = parse_networks("10.1.0.0/16, fd00::/8,")
    assert [is_allowed(each, networks) for each in ("10.1.2.3", "::ffff:10.1.2.3", "fd00::1", "10.2.0.1", "127.0.0.1")] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert is_allowed("127.0.0.1", LOOPBACK)
    assert not is_allowed("169.254.169.254", LOOPBACK)


@pytest.mark.parametrize("text", ["10.1.2.3/16", "10", "x", "10.0.0.0/33"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_networks(text)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "https://example.com",
            "https://example.com/a?b=c",
            "https://sub-domain.example.com:8443/x",
            "https://1.1.1.1/",
            "https://[2606:4700::1111]:9/",
        ),
        *("HTTPS://EXAMPLE.com/", "https://xn--mnchen-3ya.example/", "https://a_b.example.com./", "https://example.com/%40?a=@b"),
    ],
)
def test_a_public_https_url_is_accepted(url: str) -> None:
    assert faults(url, http=False, allowed=()) is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        *(
            (url, "https://")
            for url in ("http://example.com", "ftp://example.com", "example.com", "//example.com", "https:example.com", "https:/x", "")
        ),
        *((url, "https://") for url in ("https://exa mple.com", "https://example.com\\@127.0.0.1/", "https://example.com/\n", "javascript:alert(1)")),
        *(
            (url, "credentials")
            for url in ("https://user:pw@example.com/", "https://user@example.com", "https://@example.com", "https://a%40b@c.com")
        ),
        ("https://example.com/#part", "fragment"),
        *((url, "host") for url in ("https://", "https:///path", "https://:8443/", "https://-a.com", "https://a..com", f"https://{'a' * 64}.com")),
        *((url, "host") for url in ("https://①②⑦.0.0.1/", "https://127。0。0。1/", "https://münchen.example/", "https://%6c%6fcalhost/")),
        *((url, "URL") for url in ("https://example.com:x/", "https://example.com:99999/", "https://[::1/")),
        ("https://example.com:0/", "port"),
        *((url, "brackets") for url in ("https://[fe80::1%25eth0]/", "https://[2606:4700::1111]x/")),
        *((f"https://{address}/", "not public") for address in ("127.0.0.1", "169.254.169.254", "10.0.0.1", "0.0.0.0", "255.255.255.255")),
        *((f"https://[{address}]/", "not public") for address in ("::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "fe80::1", "::")),
        # The C library reads these as 127.0.0.1, 127.0.0.1, 10.0.0.1, 8.8.8.8 and 0.0.0.1.
        *((f"https://{host}/", "four decimal") for host in ("2130706433", "0177.0.0.1", "127.1", "0x7f.1", "0x7f000001", "10.1", "010.8.8.8", "1")),
        ("https://127.0.0.1./", "four decimal"),
    ],
)
def test_any_other_url_is_refused(url: str, said: str) -> None:
    assert said in (faults(url, http=False, allowed=()) or "")


def test_in_development_http_and_loopback_are_accepted() -> None:
    assert faults("http://127.0.0.1:8000/x", http=True, allowed=LOOPBACK) is None
    assert faults("http://[::1]:8000/x", http=True, allowed=LOOPBACK) is None
    assert faults("http://10.0.0.1/", http=True, allowed=LOOPBACK) is not None


def test_every_private_network_of_the_registries_is_refused() -> None:
    for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "fc00::/7", "fe80::/10"):
        whole = ipaddress.ip_network(network)
        for address in (whole[0], whole[-1], whole[whole.num_addresses // 3]):
            assert not is_allowed(str(address), ())
