from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bladeroot


@pytest.mark.parametrize("name", bladeroot.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(bladeroot, name)
    assert name in dir(bladeroot)
    if callable(value) and name != "Reporter":
        assert (value.__doc__ or "").strip()


def test_what_type_checkers_see_is_what_there_is() -> None:
    tree = ast.parse(Path(bladeroot.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.asname: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for alias in node.names
        if alias.asname
    }
    homes = {name: f"bladeroot.{home}" for name, home in bladeroot._HOMES.items()}
    assert seen == homes


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = {"libtorrent", "aiohttp", "rich", "jinja2"}
    code = f"import sys, bladeroot; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = bladeroot.nonsense


def test_the_command_line_loads_nothing_heavy_before_a_verb_runs() -> None:
    heavy = {"libtorrent", "aiohttp", "zeroconf", "nacl", "jinja2", "tomlkit", "zstandard", "rich.live"}
    code = (
        "import sys; from bladeroot.ui.cli import build_parser; build_parser();"
        f" print(sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
