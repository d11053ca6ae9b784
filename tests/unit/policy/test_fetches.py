"""Where the engine may fetch from for a user's build."""

from __future__ import annotations

import pytest

from policy.fetches import may_fetch, refusal, rules

ANY = frozenset({"*"})
PUBLIC = (
    "https://example.org/x.tgz",
    "http://example.org",
    "http://example.org:8080/x",
    "https://user:secret@example.org/x",
    "https://dl.example.org./x",
    "https://EXAMPLE.ORG/x?y=http://127.0.0.1/",
    "http://93.184.216.34/x",
    "http://172.32.0.1/",
    "http://100.128.0.1/",
    "http://[2606:2800:220:1::1]/x",
    "git://github.com/moby/buildkit.git#main",
    "git://git@github.com:moby/buildkit.git",
    "https://local.example.org/",
    "https://internal-tools.example.org/",
)
HERE = (
    "http://127.0.0.1/",
    "http://127.0.0.1:2375/x",
    "HTTP://127.0.0.1/",
    "https://localhost/",
    "http://LocalHost:80/",
    "http://localhost./",
    "http://a.localhost/",
    "http://localhost.localdomain/",
    "http://ip6-localhost/",
    "http://server/",
    "http://printer.local/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://0.0.0.0/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0177.0.0.1/",
    "http://127.0.0.01/",
    "http://[::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fd00::1]/",
    "http://[2002:7f00:1::]/",
    "http://[64:ff9b::7f00:1]/",
    "http://example.org:80@127.0.0.1/",
    "http://example.org@127.0.0.1/",
    "http://a@b@127.0.0.1/",
    "http://example.org\\@127.0.0.1/",
    "http://127.0.0.1?.example.org/",
    "http://127.0.0.1#.example.org/",
    "http:///x",
    "http://",
    "http://①②⑦.⓪.⓪.①/",
    "http://ex\u212ample.org/",
    "http://127。0。0。1/",
    "git://127.0.0.1/x.git",
    "git://git@localhost:x.git",
    "http://buildkit-session:80/x",
    "http://buildkit-session/x/../y",
)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_hosts_may_be_fetched_from(address: str) -> None:
    """Whatever the address is made of."""
    assert may_fetch(ANY, address)


@pytest.mark.parametrize("address", HERE)
def test_this_machine_and_private_networks_may_not(address: str) -> None:
    """In whatever words they are named."""
    assert not may_fetch(ANY, address)


@pytest.mark.parametrize("address", [*PUBLIC, *HERE])
def test_nothing_is_fetched_where_policy_lists_nothing(address: str) -> None:
    """`fetch_hosts: []`."""
    assert not may_fetch(frozenset(), address)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://files.lab/x", True),
        ("http://FILES.lab:8080/x", True),
        ("http://10.1.2.3/x", True),
        ("http://[fd00::1]:80/x", True),
        ("http://files.lab.evil.example/x", False),
        ("http://filesXlab/x", False),
        ("http://10.1.2.33/x", False),
        ("http://example.org/", False),
        ("http://files.lab@127.0.0.1/", False),
    ],
)
def test_listed_hosts_may_be_fetched_from(address: str, *, expected: bool) -> None:
    """Private ones too, and no others."""
    assert may_fetch(frozenset({"files.lab", "10.1.2.3", "[fd00::1]"}), address) is expected


def test_a_context_of_the_session_is_no_fetch() -> None:
    """It comes from the client, wherever policy lets the engine fetch from."""
    assert may_fetch(frozenset(), "http://buildkit-session/abc123")


def test_the_patterns_are_read_by_go_too() -> None:
    """RE2 knows no look-around, no possessive repeats and no back references."""
    for rule in rules(frozenset({"*", "files.lab"})):
        for word in ("(?=", "(?!", "(?<", "*+", "++", "\\Z", "\\1"):
            assert word not in rule.pattern


def test_a_refusal_says_what_may_be_fetched_and_no_password() -> None:
    """Nor does it go on record."""
    found = refusal(frozenset({"*", "files.lab"}), "http://me:secret@127.0.0.1/x")
    assert found is not None
    text = found.text()
    assert "public hosts, files.lab" in text
    assert "fetch_hosts" in text
    assert "secret" not in text
    assert refusal(ANY, "https://example.org/") is None
    nothing = refusal(frozenset(), "https://example.org/")
    assert nothing is not None
    assert "limit is none" in nothing.text()
