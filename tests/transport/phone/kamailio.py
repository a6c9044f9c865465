"""A real trunk: kamailio in a process. We register at it over TLS, telephones do over UDP; both with a password.

Whom it knows is called where the REGISTER came from (``received``), as trunks do with those behind NAT: over TLS that
is the very connection. It stays in the way of the whole call (Record-Route).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.transport.certificates import self_signed
from tests.transport.live import PATIENCE_S
from tests.transport.phone.baresip import free_port

PASSWORD = "secret"
GRANTED_S = 5
CONFIG = """
debug=2
log_stderror=yes
fork=yes
children=1
tcp_children=1
disable_core_dump=yes
server_signature=no
enable_tls=yes
tcp_async=yes
listen=udp:127.0.0.1:{udp}
listen=tls:127.0.0.1:{tls}
loadmodule "tls.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "nathelper.so"
loadmodule "auth.so"
modparam("tls", "certificate", "{cert}")
modparam("tls", "private_key", "{key}")
modparam("tls", "tls_method", "TLSv1.2+")
modparam("tls", "verify_certificate", 0)
modparam("usrloc", "db_mode", 0)
modparam("registrar", "max_expires", {granted})
modparam("registrar", "received_avp", "$avp(received)")
modparam("nathelper", "received_avp", "$avp(received)")

request_route {{
    if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
    force_rport();
    if (is_method("CANCEL")) {{ if (t_check_trans()) t_relay(); exit; }}
    if (has_totag()) {{
        if (loose_route()) {{ t_relay(); exit; }}
        if (is_method("ACK") && t_check_trans()) {{ t_relay(); exit; }}
        sl_send_reply("404", "Not here");
        exit;
    }}
    if (is_method("REGISTER")) {{
        if (!pv_www_authenticate("trunk", "{password}", "0")) {{ www_challenge("trunk", "1"); exit; }}
        consume_credentials();
        fix_nated_register();
        save("location");
        exit;
    }}
    if (!is_method("INVITE")) {{ sl_send_reply("405", "Method Not Allowed"); exit; }}
    if (!pv_proxy_authenticate("trunk", "{password}", "0")) {{ proxy_challenge("trunk", "1"); exit; }}
    consume_credentials();
    record_route();
    if (!lookup("location")) {{ sl_send_reply("404", "Nobody is registered so"); exit; }}
    t_relay();
}}
"""


class Kamailio:
    """One trunk. ``log`` is what it says."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.udp, self.tls = free_port(socket.SOCK_DGRAM), free_port()
        self.certificate = self_signed(folder)
        text = CONFIG.format(
            udp=self.udp,
            tls=self.tls,
            cert=self.certificate.cert,
            key=self.certificate.key,
            password=PASSWORD,
            granted=GRANTED_S,
        )
        (folder / "kamailio.cfg").write_text(text)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """It may run again after that, and knows nobody then."""
        options = f"-f {self.folder}/kamailio.cfg -DD -E -m 16 -M 8 -Y {self.folder} -w {self.folder}"
        with (self.folder / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec("kamailio", *options.split(), stdout=log, stderr=log)
            try:
                await self._listening(process)
                yield
            finally:
                if process.returncode is None:
                    process.terminate()
                    await asyncio.wait_for(process.wait(), 20)

    async def _listening(self, process: asyncio.subprocess.Process) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                assert process.returncode is None, self.log
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.tls)
                except OSError:
                    await asyncio.sleep(0.05)
                    continue
                writer.close()
                return
