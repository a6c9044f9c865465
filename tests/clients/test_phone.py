"""The PBX's configuration and the compose file: nothing here can run Asterisk or Docker, so their words are checked."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from transport.phone.config import read

ROOT = Path(__file__).parents[2]
PHONE = ROOT / "clients" / "phone"
REFERENCES = {"auth": "auth", "outbound_auth": "auth", "aors": "aor", "endpoint": "endpoint", "transport": "transport"}
SECRETS = {"PARLEY_API_KEY": "sk-x", "TURN_PASSWORD": "x"}


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def sections(path: Path) -> list[tuple[str, dict[str, str]]]:
    """Asterisk's configuration: [(section, its entries)], names may come several times."""
    found: list[tuple[str, dict[str, str]]] = []
    for line in path.read_text().splitlines():
        line = re.sub(r"(^|\s);.*", "", line).strip()
        if head := re.fullmatch(r"\[([\w-]+)\]", line):
            found.append((head[1], {}))
        elif line:
            name, equals, value = line.partition("=")
            assert equals, line
            found[-1][1][name.strip()] = value.lstrip("> ").strip()
    return found


def test_parley_s_own_file_is_one() -> None:
    config = read(PHONE / "phone.toml")
    assert config.sip is not None
    assert config.default is not None
    assert config.may_call("sip:reception@asterisk")


def test_each_pjsip_section_names_what_there_is() -> None:
    parts = sections(PHONE / "pjsip.conf")
    kinds = {(name, entries["type"]) for name, entries in parts}
    for name, entries in parts:
        for key, kind in REFERENCES.items():
            assert key not in entries or (entries[key], kind) in kinds, (name, key)
    contexts = {entries["context"] for _, entries in parts if "context" in entries}
    text = (PHONE / "extensions.conf").read_text()
    assert contexts <= set(re.findall(r"^\[([\w-]+)\]", text, re.MULTILINE))
    assert set(re.findall(r"Goto\(([\w-]+),", text)) <= set(re.findall(r"^\[([\w-]+)\]", text, re.MULTILINE))


def test_the_dial_string_names_the_client_and_its_address_is_served() -> None:
    ((name, entries),) = sections(PHONE / "websocket_client.conf")
    assert f"WebSocket/{name}/" in (PHONE / "extensions.conf").read_text()
    assert entries["type"] == "websocket_client"
    assert entries["uri"].endswith("/phone/asterisk")
    assert entries["protocols"] == "media"


def test_the_compose_file_names_what_there_is() -> None:
    services = compose()["services"]
    assert {"parley", "asterisk", "coturn"} <= set(services)
    for service in services.values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert not source.startswith("./") or (ROOT / source).is_file(), source
    sip = read(PHONE / "phone.toml").sip
    assert sip is not None
    subnet = compose()["networks"]["calls"]["ipam"]["config"][0]["subnet"]
    assert sip.trusted == (subnet,)
    for copied in re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE):
        assert all((ROOT / each).exists() for each in copied.split()), copied


def composer() -> list[str]:
    """Docker's plugin, or the program of Debian's ``docker-compose``: neither needs an engine to read a file."""
    docker = shutil.which("docker")
    if docker is not None and not subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        return [docker, "compose"]
    program = shutil.which("docker-compose")
    assert program is not None, "run: make test (it installs docker-compose)"
    return [program]


def composed(**environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in SECRETS}
    command = [*composer(), "config"]
    return subprocess.run(command, cwd=ROOT, env=clean | environment, capture_output=True, text=True, timeout=60)


def test_compose_takes_the_file() -> None:
    done = composed(**SECRETS)
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert services["parley"]["environment"]["PARLEY_ICE_SERVER"] == "turn:parley:x@coturn:3478"


@pytest.mark.parametrize("name", SECRETS)
def test_compose_asks_for_what_is_secret(name: str) -> None:
    done = composed(**{other: value for other, value in SECRETS.items() if other != name})
    assert done.returncode != 0
    assert name in done.stderr
