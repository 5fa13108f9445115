"""The command as people run it: a subprocess against a real server."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from mpengine.cli import main
from mpengine.palettes import MARKS
from mpengine.plot.command import local_url
from mpengine.plot.paint import COLOURS
from mpengine.plot.scene import compose
from tests.api.test_serving import Pool, free_port
from tests.api.world import World
from tests.client.rig import Server, always, answer, error
from tests.plot import rig

WITHIN_S = 60


def run(*arguments: str, code: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    start = ["-c", f"{code}\nfrom mpengine.cli import main\nmain()"] if code else ["-m", "mpengine.cli"]
    environment = {**os.environ, **env}
    command = [sys.executable, *start, "plot", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False, env=environment)


def url(pool: Pool) -> str:
    return f"http://127.0.0.1:{pool.port}"


def has(image: Image.Image, colour: tuple[int, int, int]) -> bool:
    return bool((np.asarray(image.convert("RGB")) == colour).all(axis=2).any())


@pytest.mark.slow
def test_a_picture_of_everything(world: World, pool: Pool, tmp_path: Path) -> None:
    world.clock.now_ms = time.time_ns() // 1_000_000
    world.add_feeds()  # its age is looked at, too
    out = tmp_path / "btc.png"
    out.write_bytes(b"the picture of yesterday")
    before = out.stat().st_ino
    # The address comes from the settings, as of an instance on this machine.
    done = run("btc", "--out", str(out), "--minutes", "30", "--layers", "liq,depth,realised", "--size", "800x450", "--set",
               "api.host=127.0.0.1", "--set", f"api.port={pool.port}")  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.startswith(f"{out}: BTC, ") and "800x450" in done.stdout and "STALE" not in done.stdout
    image = Image.open(BytesIO(out.read_bytes()))
    image.load()
    assert image.size == (800, 450) and not has(image, COLOURS["dark"].warn)
    assert has(image, COLOURS["dark"].hatch), "minutes without a map"
    assert has(image, MARKS["dark"][0]) and has(image, MARKS["dark"][1])
    assert image.info["Symbol"] == "BTC" and image.info["Layers"] == "liq,depth,realised" and image.info["Estimated"] == "estimated"
    assert image.info["Config-Hash"] == pool.settings.config_hash and image.info["Model"] == "oi-taker-ladder/1"
    begin, end = (datetime.fromisoformat(text) for text in image.info["Range"].split("/"))
    assert (end - begin).total_seconds() == 30 * 60 and abs((datetime.now(UTC) - end).total_seconds()) < 300
    assert list(tmp_path.iterdir()) == [out] and out.stat().st_ino != before, "replaced as a whole, nothing left over"


@pytest.mark.slow
def test_what_stands_still_is_marked(pool: Pool, tmp_path: Path) -> None:
    out = tmp_path / "eth.png"
    done = run("ETH", "--out", str(out), "--url", url(pool), "--minutes", "10", "--layers", "liq", "--size", "800x450",
               "--range-pct", "3")  # fmt: skip
    assert done.returncode == 0 and done.stdout.rstrip().endswith(", STALE"), done.stderr
    image = Image.open(out)
    assert has(image, COLOURS["dark"].warn) and image.info["Stale"] == "true" and 1200 <= float(image.info["Age-Seconds"]) < 1800


@pytest.mark.slow
def test_what_goes_wrong_is_said_and_leaves_the_old_file(pool: Pool, tmp_path: Path) -> None:
    out = tmp_path / "map.png"
    out.write_bytes(b"the picture of yesterday")
    there = ("--out", str(out), "--url", url(pool))
    for arguments, texts in (
        (("BTC", "--out", str(out), "--url", f"http://127.0.0.1:{free_port()}"), ("no answer from", "is mpengine running there?")),
        (("DOGE", *there), ("does not have DOGE", "BTC")),
        (("SOL", *there), ("no frames of SOL yet",)),
        (("BTC", *there, "--to", "2020-01-01"), ("no frames of BTC in this range",)),
        (("BTC", "--out", "/proc/map.png", "--url", url(pool), "--size", "800x450"), ("/proc/map.png cannot be written",)),
        (("BTC", "--out", str(tmp_path / "absent/map.png"), "--url", url(pool)), ("is not a directory",)),
        (("BTC", *there, "--key-file", str(tmp_path / "none")), ("cannot be read",)),
        (("BTC", "--out", str(out), "--url", "ftp://x"), ("must look like http://",)),
    ):
        done = CliRunner().invoke(main, ["plot", *arguments])
        assert done.exit_code == 1 and done.stderr.startswith("mpengine: "), (arguments, done.stderr)
        assert done.stdout == "" and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
        for text in texts:
            assert text in done.stderr, (arguments, done.stderr)
    assert out.read_bytes() == b"the picture of yesterday" and list(tmp_path.iterdir()) == [out]


def draw_in_process(server: Server, out: Path, *more: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["plot", "BTC", "--out", str(out), "--url", server.url, *more])
    return done.exit_code, done.stderr


def test_a_key_goes_into_a_header_and_its_refusal_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, keys = tmp_path / "map.png", tmp_path / "key.txt"
    keys.write_text("id.of-the-file\nsecond line\n", encoding="utf-8")
    monkeypatch.setenv("MPENGINE_API_KEY", "id.of-the-environment")
    with Server() as server:
        server.rest = {"/candles": always(lambda: error(401, "unauthorized", "A key is needed"))}
        for more in ((), ("--key-file", str(keys))):
            code, text = draw_in_process(server, out, *more)
            assert code == 1 and "wants a key" in text and "--key-file" in text and "of-the" not in text
        assert [one.headers["X-API-Key"] for one in server.asked] == ["id.of-the-environment", "id.of-the-file"]
        keys.write_text("\n", encoding="utf-8")
        assert "no key in its first line" in draw_in_process(server, out, "--key-file", str(keys))[1]
    assert not out.exists()


def test_another_kind_of_server_is_recognised(tmp_path: Path) -> None:
    with Server() as server:
        server.rest = {"/candles": always(lambda: answer(b"<html>", media="text/html"))}
        code, text = draw_in_process(server, tmp_path / "map.png")
        assert code == 1 and "does not answer as mpengine does" in text


def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usd = np.full((2, 60, 50), 5e5)
    scene = compose(rig.ask(), rig.heatmap({"liq": usd}), None, [], age_s=1.0, stale=False)
    out = tmp_path / "map.png"
    out.write_bytes(b"the picture of yesterday")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mpengine.plot.command.fetch", lambda *_: scene)
    arguments = ["plot", "BTC", "--out", str(out), "--url", "http://127.0.0.1:9", "--size", "800x450"]
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1 and "cannot be written (No space left on device)" in done.stderr
    assert out.read_bytes() == b"the picture of yesterday" and list(tmp_path.iterdir()) == [out]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    Image.open(out).load()


def test_without_pillow_it_says_how_to_get_it(tmp_path: Path) -> None:
    out = tmp_path / "map.png"
    done = run("BTC", "--out", str(out), "--url", "http://127.0.0.1:9", code="import sys; sys.modules['PIL'] = None")
    assert done.returncode == 1 and "pip install 'mpengine[plot]'" in done.stderr and not out.exists()


@pytest.mark.parametrize(
    "wrong",
    [
        ("--layers", "liq,tape"), ("--layers", "realised"), ("--layers", "heat"), ("--size", "10x10"), ("--size", "big"),
        ("--size", "7680x4320", "--scale", "2"), ("--to", "yesterday"), ("--to", "1795200000"), ("--lo", "5000", "--hi", "1000"),
        ("--price-min", "2", "--price-max", "1"), ("--range-pct", "2", "--price-min", "1"), ("--minutes", "4"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_code_2(wrong: tuple[str, ...]) -> None:
    done = CliRunner().invoke(main, ["plot", "BTC", "--out", "x.png", "--url", "http://127.0.0.1:9", *wrong])
    assert done.exit_code == 2 and "Usage" in done.output


def test_help_needs_no_numbers_and_no_pillow() -> None:
    done = run("--help", code="import sys; sys.modules['PIL'] = None; sys.modules['numpy'] = None")
    assert done.returncode == 0 and "--range-pct" in done.stdout


def test_the_address_of_the_settings_is_one_that_can_be_asked() -> None:
    assert local_url("0.0.0.0", 8899) == "http://127.0.0.1:8899"
    assert local_url("::", 1) == "http://[::1]:1" and local_url("10.0.0.1", 2) == "http://10.0.0.1:2"
