"""The examples of docs/client.md, run as they are against a real pool."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mpengine.client import Options, Retries
from tests.api.test_serving import Pool

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "http://127.0.0.1:8899"
PRINTED = {
    0: r"60\.0 BTC age [0-9.]+ s (fresh|stale)\n68020\.0 [0-9.]+\n",
    1: r"\(1, 133\) [0-9.]+ [0-9.]+\nDEPTH_BID [0-9.]+\nDEPTH_ASK [0-9.]+\nthe server's clock is -?[0-9]+ ms ahead, .*\n",
    2: r"400 invalid_symbol symbol must be one of BTC, ETH, SOL, XRP\n",
    3: r"(?s)(?=.*depth\.BTC [0-9]+ \[)(?=.*bybit long 100\.0 500\.0\n)(?=.*2 zones, 2 changed, 0 gone\n).*stale (True|False)\n",
    4: r"(?s).*\{'[a-z]+\.BTC': \([0-9]+, [0-9]+\), '[a-z]+\.BTC': \([0-9]+, [0-9]+\)\}\n",
}


@pytest.mark.slow
def test_the_examples_run(standing: Pool) -> None:
    text = (ROOT / "docs/client.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == len(PRINTED)
    for number, block in enumerate(blocks):
        assert ADDRESS in block
        code = block.replace(ADDRESS, f"http://127.0.0.1:{standing.port}")
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert re.fullmatch(PRINTED[number], done.stdout), done.stdout


def test_the_table_of_options_is_that_of_the_code() -> None:
    text = (ROOT / "docs/client.md").read_text(encoding="utf-8")
    table = text.split("## Options\n")[1].split("\n## ")[0]
    told: dict[str, str] = {}
    for names, values in re.findall(r"^\| (`[^|]*`) \| ([^|]*) \|", table, re.MULTILINE):
        told.update(zip(re.findall(r"`(\w+)`", names), re.split(r", (?![a-z_]+=)", values)))
    spelled = {"None": None, "64 MiB": 64 << 20, "128 MiB": 128 << 20}
    for field in dataclasses.fields(Options):
        value = told.pop(field.name).strip("`")
        expected = getattr(Options(), field.name)
        assert (eval(value, {"Retries": Retries}) if value not in spelled else spelled[value]) == expected, field.name
    assert not told
