from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transport.auth import (
    MAX_SECRETS,
    Denied,
    Exposed,
    Gate,
    Secrets,
    check_exposure,
    choose_subprotocol,
    credential,
    is_loopback,
)

KEYED = Gate(api_keys=("sk-one", "sk-two"))
LOCAL = {"host": "127.0.0.1:8000"}


def bearer(key: str) -> dict[str, str]:
    return {"host": "voice.example", "authorization": f"Bearer {key}"}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LOCALHOST."])
def test_loopback_needs_no_key(host: str) -> None:
    assert is_loopback(host)
    check_exposure(host, [])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "voice.example", "", "localhost.example"])
def test_beyond_loopback_a_key_is_needed(host: str) -> None:
    with pytest.raises(Exposed, match="--api-key"):
        check_exposure(host, [])
    with pytest.raises(Exposed, match="--api-key"):
        check_exposure(host, [""])
    check_exposure(host, ["sk-one"])


@pytest.mark.parametrize("key", ["sk-one", "sk-two"])
def test_every_way_to_carry_a_key(key: str) -> None:
    assert KEYED.admit(bearer(key), [], 0.0).with_key
    assert KEYED.admit({"api-key": key}, [], 0.0).with_key
    assert KEYED.admit({}, ["realtime", f"openai-insecure-api-key.{key}"], 0.0).with_key


@given(st.text(max_size=30))
def test_a_wrong_key_stays_outside(key: str) -> None:
    if key.strip() in KEYED.api_keys:
        return
    with pytest.raises(Denied) as denied:
        KEYED.admit(bearer(key), [], 0.0)
    assert denied.value.status == 401
    assert key not in denied.value.message or len(key.strip()) < 20  # the key isn't repeated


def test_no_key_says_how_to_send_one() -> None:
    with pytest.raises(Denied, match="Authorization: Bearer"):
        KEYED.admit(LOCAL, ["realtime"], 0.0)


def test_the_answer_never_repeats_the_key() -> None:
    assert choose_subprotocol(["openai-insecure-api-key.sk-one", "realtime"]) == "realtime"
    assert choose_subprotocol(["openai-insecure-api-key.sk-one"]) is None
    assert choose_subprotocol([]) is None


def test_the_header_goes_before_the_subprotocol() -> None:
    assert credential(bearer("a"), ["openai-insecure-api-key.b"]) == "a"
    assert credential({"authorization": "Basic abc"}, ["openai-insecure-api-key.b"]) == "b"
    assert credential({}, ["realtime"]) == ""


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("https://voice.example", "voice.example"),
        ("https://voice.example", "voice.example:443"),
        ("https://Voice.Example", "voice.example"),
        ("http://[::1]:8000", "[::1]:8000"),
        ("https://app.example", "voice.example"),  # on the list
    ],
)
def test_a_page_may_call_its_own_server(origin: str, host: str) -> None:
    Gate(allowed_origins=("https://app.example/",)).check_origin({"origin": origin, "host": host})


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "",
        "http://127.0.0.1:9000",
        "https://voice.example.evil",
        "file://",
        "http://[::1",
    ],
)
def test_a_page_of_another_site_may_not(origin: str) -> None:
    gate = Gate(api_keys=("sk-one",), allowed_origins=("https://app.example",))
    with pytest.raises(Denied) as denied:
        gate.admit({**bearer("sk-one"), "host": "127.0.0.1:8000", "origin": origin}, [], 0.0)
    assert denied.value.status == 403


def test_any_origin_can_be_allowed() -> None:
    Gate(allowed_origins=("*",)).check_origin({"origin": "https://anything.example", "host": "voice.example"})


def test_without_a_key_only_loopback_names_are_served() -> None:
    gate = Gate()
    for host in ("127.0.0.1:8000", "localhost:8000", "[::1]:8000"):
        assert gate.admit({"host": host, "origin": f"http://{host}"}, [], 0.0).with_key
    for host in ("evil.example:8000", "", "192.168.0.7:8000"):  # a name bound to 127.0.0.1 by a hostile site
        with pytest.raises(Denied) as denied:
            gate.admit({"host": host, "origin": f"http://{host}"}, [], 0.0)
        assert denied.value.status == 403


def test_a_secret_lives_as_long_as_it_was_given() -> None:
    gate = Gate(api_keys=("sk-one",))
    secret = gate.secrets.issue({"instructions": "Be brief."}, 60, now_s=1000.0)
    assert secret.value.startswith("ek_")
    assert secret.value not in repr(secret)
    caller = gate.admit(bearer(secret.value), [], 1059.9)
    assert caller.session == {"instructions": "Be brief."}
    assert not caller.with_key
    with pytest.raises(Denied):
        gate.admit(bearer(secret.value), [], 1060.0)


def test_a_secret_is_bound_even_where_no_key_is_needed() -> None:
    gate = Gate()
    secret = gate.secrets.issue({"voice": "a"}, 60, now_s=0.0)
    assert gate.admit({**LOCAL, "authorization": f"Bearer {secret.value}"}, [], 1.0).session == {"voice": "a"}


@pytest.mark.parametrize("seconds", [0, 9, 7201, -1])
def test_a_life_out_of_range_is_refused(seconds: int) -> None:
    with pytest.raises(ValueError, match="10 to 7200"):
        Secrets().issue({}, seconds, now_s=0.0)


def test_secrets_are_bounded_and_the_dead_make_room() -> None:
    store = Secrets()
    for _ in range(MAX_SECRETS):
        store.issue({}, 10, now_s=0.0)
    with pytest.raises(Denied) as denied:
        store.issue({}, 10, now_s=9.0)
    assert denied.value.status == 429
    store.issue({}, 10, now_s=10.0)
    assert len(store) == 1
