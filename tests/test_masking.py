"""What is a secret is taken out by its type or its form; what is none stays readable."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest

from kitlib.command import Secret
from kitlib.errors import CommandError, KitError
from kitlib.masking import MASK, mask, mask_text, remember
from kitlib.model import CommandResult

HEX = "5c7e" * 16
KEY = (
    "-----BEGIN RSA PRIVATE KEY-----\n"
    + "\n".join("MIIEow" + letter * 58 for letter in "abcdefghijklmno")
    + "\nlast==\n-----END RSA PRIVATE KEY-----\n"
)


def test_a_secret_is_masked_everywhere_from_when_it_is_made() -> None:
    value = "p4ss w/ord"
    Secret(value)
    for form in (value, quote(value, safe=""), base64.b64encode(value.encode()).decode()):
        assert mask_text(f"x {form} y") == f"x {MASK} y"
        assert mask({"deep": [f"<{form}>"]}) == {"deep": [f"<{MASK}>"]}
    error = KitError(f"it said {value}", remedy=f"not {value}")
    assert value not in f"{error} {error!r} {error.args}"


def test_a_very_short_value_is_not_looked_for_in_text() -> None:
    remember("a", "")
    assert mask_text("a cat") == "a cat"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"Using certificate key:\n{HEX}\n", "Using certificate key:\n***\n"),
        (f"certificateKey: {HEX}", "certificateKey: ***"),
        ("key: " + base64.b64encode(KEY.encode()).decode(), "key: ***"),
        ("http://me:hunter2@mirror.example/x", "http://me:***@mirror.example/x"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("eyJhbGciOiJSUzI1NiIs.eyJpc3MiOiJr.c2ln", "***"),
        ('{"password": "x y", "user": "u"}', '{"password": ***, "user": "u"}'),
        ("DB_PASSWORD=hunter2 next", "DB_PASSWORD=*** next"),
    ],
)  # fmt: skip
def test_by_form(text: str, shown: str) -> None:
    assert mask_text(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        f"sha256:{HEX}",
        f"container {HEX} runs",
        "certificate: " + base64.b64encode(b"-----BEGIN CERTIFICATE-----\nMIIC\n" * 3).decode(),
        "http://127.0.0.1:7720/flannel.yaml",
        "root@worker-1:22: password for root",
        "/home/me/password: mode 0640: others may use it",
        "ssh.become_password: ***: unknown key",
        "10.244.1.0/24 via 10.77.0.12 dev eth0",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert mask_text(text) == text


@pytest.mark.parametrize("lines", [1, 3, 10, 100])
def test_the_last_lines_of_an_output_never_hold_a_piece_of_a_key(lines: int) -> None:
    result = CommandResult("h", "cat", KEY, KEY + "\nfailed", 1)
    shown = result.tail(lines) + str(CommandError("h", "cat", 1, result.tail(lines)))
    assert "failed" in shown
    assert "MIIEow" not in shown


def test_a_key_whose_beginning_was_cut_off_on_the_host() -> None:
    cut = "".join(KEY.splitlines(keepends=True)[-6:])
    assert (
        mask_text(f"one more\n{cut}after")
        == f"one more\n{MASK}\n-----END RSA PRIVATE KEY-----\nafter"
    )


def test_objects_of_the_api() -> None:
    pod = {
        "kind": "Pod",
        "spec": {"containers": [{"env": [
            {"name": "DB_PASSWORD", "value": "hunter2"},
            {"name": "MODE", "value": "fast"},
        ]}]},
    }  # fmt: skip
    env = mask(pod)["spec"]["containers"][0]["env"]
    assert [each["value"] for each in env] == [MASK, "fast"]
    secret = {"kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "b"}, "number": 3}
    assert mask(secret) == {**secret, "data": MASK}


def test_much_text_is_masked_in_bearable_time() -> None:
    """No form may need more than a look at each character, whatever the text is."""
    for part in ("A" * 4000 + " ", "abcd efgh ", "password ", "://", "eyJ" * 9, "-----BEGIN "):
        mask_text(part * (200_000 // len(part)))
