"""Puts the pages into the wheel: `clients/` is not a package of ours, and an installed server has to serve them."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PAGES = ("web", "kiosk")


class WithPages(build_py):
    """Everything else is in pyproject.toml."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # they are served from where they are
            return
        for name in PAGES:
            to = Path(self.build_lib) / "transport" / "clients" / name
            shutil.copytree(Path("clients") / name, to, dirs_exist_ok=True)


setup(cmdclass={"build_py": WithPages})
