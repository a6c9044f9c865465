"""An application is told of a call: ``realtime.call.incoming``, as the OpenAI API posts it, signed as it signs.

Signature: Standard Webhooks (standardwebhooks.com): HMAC-SHA256 over ``id.timestamp.body``, base64, ``v1,`` before it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import logging
import secrets
import time
from typing import Any

import httpx

from transport.phone.call import About

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0
SECRET_PREFIX = "whsec_"


class WebhookFailed(Exception):
    """The application did not take it. The text says why."""


def incoming(about: About, now_s: float) -> dict[str, Any]:
    """The event, with what the call's signalling said."""
    headers = {"From": about.caller, "To": about.number} | dict(about.headers)
    return {
        "object": "event",
        "id": f"evt_{secrets.token_hex(12)}",
        "type": "realtime.call.incoming",
        "created_at": int(now_s),
        "data": {
            "call_id": about.id,
            "sip_headers": [{"name": name, "value": value} for name, value in headers.items()],
        },
    }


def signed(body: bytes, event_id: str, now_s: float, secret: str) -> dict[str, str]:
    """The headers of the request; unsigned without a secret."""
    headers = {"webhook-id": event_id, "webhook-timestamp": str(int(now_s)), "content-type": "application/json"}
    if not secret:
        return headers
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        key = secret.encode()
    content = f"{event_id}.{int(now_s)}.".encode() + body
    digest = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    return headers | {"webhook-signature": f"v1,{digest}"}


async def post(url: str, secret: str, about: About) -> None:
    """Raises WebhookFailed unless it was answered with a 2xx in time."""
    now_s = time.time()
    event = incoming(about, now_s)
    body = json.dumps(event).encode()
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
            answer = await client.post(url, content=body, headers=signed(body, event["id"], now_s, secret))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise WebhookFailed(f"{url}: {error or type(error).__name__}") from None
    if not answer.is_success:
        raise WebhookFailed(f"{url}: HTTP {answer.status_code}")
