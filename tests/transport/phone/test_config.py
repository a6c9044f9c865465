from __future__ import annotations

import re
from pathlib import Path

import pytest

import transport.phone.config as module
from transport.phone.config import PhoneConfig, PhoneConfigError, SipConfig, read
from transport.phone.policy import Policy


def file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "phone.toml"
    path.write_text(text)
    return path


def test_the_example_in_the_documentation_is_one(tmp_path: Path) -> None:
    example = re.sub(r"^    ", "", (module.__doc__ or "").partition("\n\n")[2], flags=re.MULTILINE)
    config = read(file(tmp_path, example))
    policy = config.policy("+49 30 123456")
    assert policy is not None
    assert policy.transfers == {"kitchen": "sip:kitchen@pbx.example.com"}
    assert policy.max_minutes == 20
    assert config.policy("+1") is config.default
    assert config.sip is not None
    assert config.sip.rtp_ports == (10000, 10199)
    assert config.trunk.register
    assert config.may_call("+49 170 1")
    assert not config.may_call("+1 900 1")


def test_without_a_default_others_are_refused(tmp_path: Path) -> None:
    assert read(file(tmp_path, '[numbers."100"]\n')).policy("200") is None
    assert PhoneConfig().policy("200") == Policy()
    assert not PhoneConfig().may_call("+49")


def test_no_password_is_ever_shown() -> None:
    config = PhoneConfig(twilio_auth_token="tok", webhook_secret="sec", sip=SipConfig(users={"a": "pass"}))
    assert not re.search("tok'|sec'|pass'", repr(config))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[default", "is not TOML"),
        ("colour = 1", "unknown entries: colour"),
        ("[default]\ncolour = 1", "default: unknown entries: colour"),
        ("default = 1", "default must be a table"),
        ("numbers = 1", "numbers must be tables"),
        ('[numbers."1"]\ngreeting = 7', "1: greeting must be a string"),
        ('[numbers."1"]\nhours = "mon"', "hours must be a list"),
        ('[numbers."1"]\nhours = ["mon"]', "should look like"),
        ('[numbers."1"]\nmax_minutes = true', "must be a number"),
        ('[numbers."1"]\nmax_calls = 1.5', "without a fraction"),
        ('[numbers."1"]\ntransfers = { a = 1 }', "table of strings"),
        ("public_url = 1", "public_url must be a string"),
        ("[sip]\nport = 70000", "sip: port must be"),
        ("[sip]\nrtp_ports = [1]", "two numbers"),
        ("[sip]\nrtp_ports = [20000, 10000]", "the first the lower"),
        ('[sip]\ntrusted = ["here"]', "does not appear to be"),
        ("[sip]\nsession_expires_s = 5", "at least 90"),
        ("[trunk]\nregister = true", "needs host and user"),
        ('[trunk]\ntransport = "sctp"', "'udp', 'tcp' or 'tls'"),
        ("[trunk]\nsrtp = true", "needs transport = 'tls'"),
        ("[sip]\ntls_port = 70000", "tls_port must be"),
        ('[sip]\ntls_key = "key.pem"', "tls_key needs tls_cert"),
        ("[trunk]\nregister = 1", "true or false"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PhoneConfigError, match=message):
        read(file(tmp_path, text))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PhoneConfigError, match="No such file"):
        read(tmp_path / "nothing.toml")


def test_whom_sip_trusts() -> None:
    sip = SipConfig(trusted=("198.51.100.0/24", "2001:db8::/32"))
    assert [sip.trusts(ip) for ip in ("198.51.100.9", "198.51.101.9", "2001:db8::9", "127.0.0.1")] == [
        True, False, True, False,
    ]  # fmt: skip
    assert SipConfig().trusts("127.0.0.1")
