"""Sending a call on: REFER and what they tell of it (RFC 3515); attended, in the place of another call (RFC 3891)."""

from __future__ import annotations

import asyncio
import re
from urllib.parse import quote

from aiosipua.message import SipResponse

from transport.phone.sip_dialog import Dialog
from transport.phone.tools import Unable

REFER_S = 40.0
"""Whoever we send on must have been answered by then."""
_SIPFRAG = re.compile(r"^SIP/2\.0 (\d{3})")
_ADDRESSES = ("sip:", "sips:", "tel:")


class Transfer:
    """One REFER of ours, until it is known how it went."""

    def __init__(self) -> None:
        self._status: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def _settle(self, status: int) -> None:
        if not self._status.done():
            self._status.set_result(status)

    def answered(self, answer: SipResponse | None) -> None:
        """To the REFER itself; 202 says nothing yet."""
        status = 408 if answer is None else answer.status_code
        if status >= 300:
            self._settle(status)

    def notified(self, sipfrag: str) -> None:
        """How far their call to the target is."""
        told = _SIPFRAG.match(sipfrag)
        if told is not None and (status := int(told[1])) >= 200:
            self._settle(status)

    def gone(self) -> None:
        """They hung up, and took the call with them."""
        self._settle(200)

    async def finished(self) -> None:
        """Raises Unable where it failed, or nobody says."""
        try:
            async with asyncio.timeout(REFER_S):
                status = await self._status
        except TimeoutError:
            raise Unable(f"they did not say within {REFER_S:.0f} s how the transfer went") from None
        if status >= 300:
            raise Unable(f"the transfer failed: {status}")


def address(target: str, host: str) -> str:
    """A number is called at ``host``."""
    return target if target.startswith(_ADDRESSES) else f"sip:{target}@{host}"


def in_place_of(dialog: Dialog) -> str:
    """The far end of a call of ours, to be called in its place: our own tag is the "from" there (section 3)."""
    replaces = f"{dialog.call_id};to-tag={dialog.remote_tag};from-tag={dialog.local_tag}"
    separator = "&" if "?" in dialog.target else "?"
    return f"{dialog.target}{separator}Replaces={quote(replaces, safe='')}"
