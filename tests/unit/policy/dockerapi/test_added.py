"""What ADD lines fetch."""

from __future__ import annotations

import pytest

from policy.dockerapi.added import addresses

HERE = "http://127.0.0.1/x"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (f"{HERE} /x", (HERE,)),
        (f"--chown=1:1 --chmod=644 {HERE} /x", (HERE,)),
        (f"-- {HERE} /x", (HERE,)),
        (f'["{HERE}", "/x"]', (HERE,)),
        ('["\\u0068ttp://127.0.0.1/x", "/x"]', (HERE,)),
        (f'--chown=1 ["{HERE}", "/x"]', (HERE,)),
        (f"a {HERE} b /x", (HERE,)),
        ("HTTPS://Example.org/x /x", ("HTTPS://Example.org/x",)),
        ("http://example.org/v$VERSION/x.tgz /x", ("http://example.org/v",)),
        ("http://example.org?$Q /x", ("http://example.org?",)),
        ("http://example.org /x", ("http://example.org",)),
    ],
)
def test_addresses_are_found(arguments: str, expected: tuple[str, ...]) -> None:
    """As far as they are sure to stay as they are."""
    assert addresses(arguments) == (expected, None)


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "x",
        "a b /x",
        "./$FILE /x",
        "hello.txt /x",
        "http /x",
        "httpd.conf /etc/",
        "h /x",
        "ftp://127.0.0.1/x /x",
        "a $HOME/",
        "a http://127.0.0.1/x",
        '["a", "$HOME/"]',
        "a$VERSION.tgz /x",
        "[abc]*.txt /x",
    ],
)
def test_files_are_none(arguments: str) -> None:
    """Nor is where things go."""
    assert addresses(arguments) == ((), None)


@pytest.mark.parametrize(
    "word",
    [
        "$URL", "${URL}", "h$REST", "http:$REST", "http://$HOST/x", "http://127.$REST", "http://example.org$REST",
        "https://user@$HOST/", "h\\ttp://127.0.0.1/", '"http://127.0.0.1/"', "'http://127.0.0.1/'", "h`ttp://127.0.0.1/",
        "http://127.0.0.1\\/x", "$A$B",
    ],
)  # fmt: skip
def test_what_may_be_an_address_is_told(word: str) -> None:
    """The builder takes quotes, escapes and variables off before it looks."""
    assert addresses(f"{word} /x") == ((), word)
    assert addresses(f"a {word} b /x") == ((), word)
