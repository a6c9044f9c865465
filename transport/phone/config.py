"""How a server is reached by telephone: a TOML file, given to ``parley serve --phone FILE``.

public_url = "https://voice.example.com"      # how carriers reach this server
webhook_secret = "whsec_..."                   # signs what is asked of an application (Standard Webhooks)

[default]                                      # numbers that have no table of their own; without it: refused
instructions = "You answer for Example Ltd."

[numbers."+4930123456"]
instructions = "You take table reservations."
voice = "aria"
greeting = "Good evening, Trattoria Example."
hours = ["mon-fri 09:00-17:30", "sat 10:00-14:00"]
time_zone = "Europe/Berlin"
max_minutes = 20
max_calls = 4
callers = ["+49*"]
tools = ["hang_up", "transfer_call"]
transfers = { kitchen = "sip:kitchen@pbx.example.com" }
recordings = "/var/lib/parley/calls"
webhook = "https://app.example.com/calls"
answering_machine = "leave_message"            # or "hang_up": when a machine takes a call of ours
message = "This is Trattoria Example. Your table is ready."

[outbound]                                     # whom POST /v1/phone/calls may call; without it: nobody
callees = ["+49*"]

[sip]                                          # a SIP endpoint of our own; without it: none
host = "0.0.0.0"
port = 5060
public_address = "203.0.113.5"                 # behind NAT: what Via, Contact and SDP say
rtp_ports = [10000, 10199]
trusted = ["198.51.100.0/24"]                  # may call without a password (a trunk's addresses; one that we register
                                               # at over tcp or tls calls back on that connection, and needs none)
users = { reception = "a password" }           # telephones that may call with one
tls_cert = "/etc/parley/cert.pem"              # SIP over TLS on tls_port (5061); without it: none
tls_key = "/etc/parley/key.pem"
srtp_required = true                           # refuse calls whose sound is not encrypted (SRTP); else they decide

[trunk]                                        # where we register, and where our own calls go out
host = "sip.example.com"
user = "4930123456"
password = "..."
register = true
transport = "tls"                              # "udp" if not said; its certificate must be right for host
srtp = true                                    # our calls' sound is encrypted
"""

from __future__ import annotations

import ipaddress
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from transport.phone.policy import Hours, Policy, normal

T = TypeVar("T")


class PhoneConfigError(ValueError):
    """The file can't be used; the text says which entry and why."""


@dataclass(frozen=True)
class SipConfig:
    """Our SIP endpoint."""

    host: str = "127.0.0.1"
    port: int = 5060
    """UDP and TCP; 0: any free one."""
    public_address: str = ""
    """What Via, Contact and SDP say; "": the address that reaches the peer."""
    rtp_ports: tuple[int, int] = (10000, 10199)
    """First and last; a call takes two."""
    trusted: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """Networks that may call without a password."""
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Name -> password of those who may call from elsewhere."""
    session_expires_s: int = 1800
    """A call whose far end says nothing for so long is over (RFC 4028); 0: no such timer."""

    tls_cert: str = ""
    """A file; "": no TLS."""
    tls_key: str = ""
    """"": it is in the same file."""
    tls_port: int = 5061
    """0: any free one."""
    tls_ca: str = ""
    """A file of the authorities that those whom we connect to must be certified by; "": the system's."""
    srtp_required: bool = False
    """Calls without it are refused, and ours are made with it. Else they decide."""

    def __post_init__(self) -> None:
        first, last = self.rtp_ports
        if not 0 <= self.tls_port <= 65535:
            raise ValueError(f"tls_port must be 0 to 65535, not {self.tls_port}")
        if self.tls_key and not self.tls_cert:
            raise ValueError("tls_key needs tls_cert")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port must be 0 to 65535, not {self.port}")
        if not 1024 <= first < last <= 65535:
            raise ValueError(f"rtp_ports must be two ports of 1024 to 65535, the first the lower, not {first}, {last}")
        if self.session_expires_s and self.session_expires_s < 90:
            raise ValueError("session_expires_s must be at least 90, or 0")
        for network in self.trusted:
            ipaddress.ip_network(network, strict=False)

    def trusts(self, address: str) -> bool:
        """Whether calls from that address need no password."""
        ip = ipaddress.ip_address(address.partition("%")[0])
        return any(ip in ipaddress.ip_network(network, strict=False) for network in self.trusted)


@dataclass(frozen=True)
class TrunkConfig:
    """Whoever carries our calls to the telephone network."""

    host: str = ""
    """``HOST`` or ``HOST:PORT``; "": there is none, only ``sip:`` addresses can be called."""
    user: str = ""
    password: str = field(default="", repr=False)
    number: str = ""
    """What they see who are called; "": the user."""
    register: bool = False
    expires_s: int = 300
    transport: str = "udp"
    srtp: bool = False
    """The sound of our own calls is encrypted; who can't do that can't be called."""

    def __post_init__(self) -> None:
        if self.transport not in ("udp", "tcp", "tls"):
            raise ValueError(f"transport must be 'udp', 'tcp' or 'tls', not {self.transport!r}")
        if self.srtp and self.transport != "tls":
            raise ValueError("srtp needs transport = 'tls': its keys are in the messages")
        if self.register and not (self.host and self.user):
            raise ValueError("register needs host and user")
        if self.expires_s < 60:
            raise ValueError("expires_s must be at least 60")


@dataclass(frozen=True)
class PhoneConfig:
    """All of it."""

    default: Policy | None = field(default_factory=Policy)
    """For numbers that aren't listed; None: they are refused."""
    numbers: Mapping[str, Policy] = field(default_factory=dict)
    """Keys as ``normal`` spells them."""
    public_url: str = ""
    """``https://HOST`` under which carriers reach this server; "": as each request says."""
    webhook_secret: str = field(default="", repr=False)
    twilio_auth_token: str = field(default="", repr=False)
    """What Twilio signs its requests with; "": no signature is wanted, an API key or this machine is."""
    callees: tuple[str, ...] = ()
    """Numbers and addresses we may call; ``*`` stands for anything."""
    sip: SipConfig | None = None
    trunk: TrunkConfig = field(default_factory=TrunkConfig)

    def objection(self, number: str, caller: str, now: datetime) -> str:
        """Why a call of ``caller`` to ``number`` is not taken; "" when it is."""
        policy = self.policy(number)
        return "number_not_served" if policy is None else policy.objection(normal(caller), now)

    def policy(self, number: str) -> Policy | None:
        """What holds for ``number``, in any spelling; None: it is not served here."""
        return self.numbers.get(normal(number), self.default)

    def may_call(self, callee: str) -> bool:
        """Whether we may call that number or address."""
        return any(fnmatchcase(normal(callee), normal(pattern)) for pattern in self.callees)


# --- from the file ------------------------------------------------


def read(path: Path) -> PhoneConfig:
    """Raises PhoneConfigError."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PhoneConfigError(f"{path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PhoneConfigError(f"{path} is not TOML: {error}") from None
    try:
        return parse(table)
    except ValueError as error:
        raise PhoneConfigError(f"{path}: {error}") from None


def parse(table: Mapping[str, Any]) -> PhoneConfig:
    """Raises ValueError."""
    known = {"default", "numbers", "public_url", "webhook_secret", "outbound", "sip", "trunk"}
    if unknown := sorted(set(table) - known):
        raise ValueError(f"unknown entries: {', '.join(unknown)}")
    numbers = table.get("numbers", {})
    if not isinstance(numbers, dict):
        raise ValueError('numbers must be tables: [numbers."+4930123456"]')
    config = PhoneConfig(numbers={normal(number): _policy(number, entry) for number, entry in numbers.items()})
    outbound = _section("outbound", table.get("outbound", {}), _Outbound)
    return replace(
        config,
        default=_policy("default", table["default"]) if "default" in table else None,
        public_url=_text(table, "public_url").rstrip("/"),
        webhook_secret=_text(table, "webhook_secret"),
        callees=outbound.callees,
        sip=_section("sip", table["sip"], SipConfig) if "sip" in table else None,
        trunk=_section("trunk", table.get("trunk", {}), TrunkConfig),
    )


@dataclass(frozen=True)
class _Outbound:
    callees: tuple[str, ...] = ()


def _text(table: Mapping[str, Any], name: str) -> str:
    value = table.get(name, "")
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a string")
    return value


def _policy(name: str, entry: Any) -> Policy:
    return _section(name, entry, Policy)


def _section(name: str, entry: Any, kind: Callable[..., T]) -> T:
    """A table as the dataclass ``kind``: what its fields are called and what type their defaults have is allowed."""
    if not isinstance(entry, dict):
        raise ValueError(f"{name} must be a table")
    known = {each.name: each for each in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(entry) - set(known)):
        raise ValueError(f"{name}: unknown entries: {', '.join(unknown)}")
    plain = kind()
    try:
        return kind(**{key: _value(key, value, getattr(plain, key)) for key, value in entry.items()})
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _value(key: str, value: Any, plain: Any) -> Any:
    """``value`` in the type of ``plain``."""
    match key:
        case "hours":
            return tuple(Hours.parse(text) for text in _strings(key, value))
        case "callers":
            return tuple(normal(pattern) for pattern in _strings(key, value))
        case "rtp_ports":
            if not isinstance(value, list) or len(value) != 2 or not all(type(port) is int for port in value):
                raise ValueError("rtp_ports must be two numbers: [10000, 10199]")
            return tuple(value)
    match plain:
        case tuple():
            return tuple(_strings(key, value))
        case dict():
            if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
                raise ValueError(f"{key} must be a table of strings")
            return dict(value)
        case bool() | str():
            if type(value) is not type(plain):
                raise ValueError(f"{key} must be {'true or false' if type(plain) is bool else 'a string'}")
        case int() | float():
            if type(value) not in ((int,) if type(plain) is int else (int, float)):
                raise ValueError(f"{key} must be a number{' without a fraction' if type(plain) is int else ''}")
    return value


def _strings(key: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"{key} must be a list of strings")
    return value
