"""What all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
LIVE = HERE / "transport"
TRIES = 3


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Real browsers, telephones and sockets run in real time, and a shared machine stalls for seconds: these tests, and
    no others, are tried again, and the closing line says how often. What is pure must pass the first time.

    Browsers and telephones have not been seen to pass all together in one run yet: `make test` leaves them out, `make
    test-unproved` runs them."""
    for item in items:
        real = item.get_closest_marker("browser") or item.get_closest_marker("phone")
        if real:
            item.add_marker(pytest.mark.unproved)
        if real or LIVE in item.path.parents:
            item.add_marker(pytest.mark.flaky(reruns=TRIES - 1))
