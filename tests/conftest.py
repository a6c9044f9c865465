"""What all tests share."""

from __future__ import annotations

import pytest

TRIES = 3


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Real browsers, telephones and servers run in real time, and a shared machine stalls for seconds: these tests, and
    no others, are tried again, and the closing line says how often."""
    for item in items:
        real = item.get_closest_marker("browser") or item.get_closest_marker("phone")
        if real or (isinstance(item, pytest.Function) and hasattr(item.module, "LiveServer")):
            item.add_marker(pytest.mark.flaky(reruns=TRIES - 1))
