"""The key file and the command that changes it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mpengine.keys import KeyFileError, KeyRecord, change, new_key, read

NOW_MS = 1_795_200_000_000


def add(path: Path, **values: object) -> str:
    record, text = new_key(NOW_MS, ["read"])
    changed = KeyRecord(**{**{name: getattr(record, name) for name in record.__struct_fields__}, **values})
    change(path, lambda records: [*records, changed])
    return text


def test_a_key_is_an_id_and_256_random_bits_of_which_a_hash_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    texts = [add(path) for _ in range(20)]
    assert len(set(texts)) == 20
    for text, record in zip(texts, read(path).keys):
        identity, _, secret = text.partition(".")
        assert re.fullmatch(r"[0-9a-f]{12}", identity) and re.fullmatch(r"[A-Za-z0-9_-]{43}", secret)
        assert (record.id, record.sha256) == (identity, hashlib.sha256(secret.encode()).hexdigest())
        assert secret not in path.read_text("utf-8")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_states() -> None:
    record = KeyRecord(id="abcd", sha256="0" * 64, scopes=["read"], created_ms=0, expires_ms=NOW_MS)
    assert [record.state(NOW_MS - 1), record.state(NOW_MS)] == ["active", "expired"]
    revoked = KeyRecord(id="abcd", sha256="0" * 64, scopes=["read"], created_ms=0, revoked_ms=5)
    assert revoked.ended(0) and revoked.state(0) == "revoked"
    assert not KeyRecord(id="abcd", sha256="0" * 64, scopes=[], created_ms=0).ended(1 << 60)


GOOD = '{"schema_version":1,"keys":[{"id":"abcd","sha256":"%s","scopes":["read"],"created_ms":1}]}' % ("0" * 64)


@pytest.mark.covers("E-M3", "S-H6")
@pytest.mark.parametrize(
    ("text", "mode", "reason"),
    [
        (GOOD, 0o620, "can be written by others"),
        (GOOD, 0o602, "can be written by others"),
        ("", 0o600, "no key file of version 1"),
        ("[]", 0o600, "no key file of version 1"),
        (GOOD.replace(":1,", ":2,", 1), 0o600, "no key file of version 1"),
        (GOOD.replace(":1,", ":0,", 1), 0o600, "no key file of version 1"),
        (GOOD.replace('"schema_version":1,', '"schema_version":1,"more":1,', 1), 0o600, "no key file"),
        (GOOD.replace("read", "admin"), 0o600, "no key file"),
        (GOOD.replace("abcd", "../x"), 0o600, "no key file"),
        (GOOD.replace("0" * 64, "0" * 63), 0o600, "no key file"),
        (GOOD.replace('"created_ms":1', '"created_ms":-1'), 0o600, "no key file"),
        (GOOD.replace("}]}", '},{"id":"abcd","sha256":"%s","scopes":[],"created_ms":1}]}' % ("1" * 64)), 0o600, "an id twice"),
        ("\udcff", 0o600, "no key file"),
        (" " * ((16 << 20) + 1), 0o600, "larger than 16 MiB"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str, mode: int, reason: str) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    path.chmod(mode)
    with pytest.raises(KeyFileError, match=reason) as refused:
        read(path)
    assert "0000" not in str(refused.value)
    if mode == 0o600:
        before = path.read_bytes()
        with pytest.raises(KeyFileError, match=reason):
            change(path, lambda records: records)
        assert path.read_bytes() == before


def test_a_change_that_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "keys.json"
    add(path)
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match="would not be readable"):
        add(path, note="two\nlines")
    assert path.read_bytes() == before
    with pytest.raises(FileNotFoundError):
        read(path.with_name("other"))
    path.unlink()
    path.mkdir()
    with pytest.raises(KeyFileError, match="cannot be read"):
        read(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_root_shell_does_not_lock_the_service_out(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12346)
    path = tmp_path / "keys.json"
    add(path)
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 12346)
    os.chown(path, 23456, 23457)
    add(path)
    assert (path.stat().st_uid, path.stat().st_gid) == (23456, 23457)


def test_two_commands_at_once_lose_nothing(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nsys.path.insert(0, '.')\nfrom tests.test_keys import add\n"
        "for _ in range(25):\n    add(Path(sys.argv[1]))\n"
    )
    path = tmp_path / "keys.json"
    processes = [subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=Path(__file__).parents[1]) for _ in range(3)]
    try:
        assert [process.wait(60) for process in processes] == [0, 0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert len(read(path).keys) == 75


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mpengine.cli", "keys", arguments[0], "--set", f"instance.data_dir={cwd}", *arguments[1:]]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def test_the_command(tmp_path: Path) -> None:
    assert run("list", cwd=tmp_path).stdout == ""
    made = run("add", "--scope", "read", "--expires", "2030-01-31T12:00:00+01:00", "--note", "desk 3", cwd=tmp_path)
    text = made.stdout.strip()
    identity, _, secret = text.partition(".")
    assert (made.returncode, made.stdout) == (0, f"{identity}.{secret}\n") and "not shown again" in made.stderr
    both = run("add", "--expires", "90d", cwd=tmp_path).stdout.partition(".")[0]
    first, second = read(tmp_path / "api-keys.json").keys
    assert (first.scopes, first.expires_ms, first.note) == (["read"], 1_896_087_600_000, "desk 3")
    assert (second.id, second.scopes) == (both, ["read", "push"]) and second.expires_ms == second.created_ms + 90 * 86_400_000
    shown = run("list", cwd=tmp_path)
    assert identity in shown.stdout and "2030-01-31 11:00" in shown.stdout and "desk 3" in shown.stdout
    assert secret not in shown.stdout + shown.stderr and first.sha256 not in shown.stdout + shown.stderr
    assert run("expire", identity, "never", cwd=tmp_path).returncode == 0
    assert run("expire", both, "2020-01-01", cwd=tmp_path).returncode == 0
    assert run("revoke", identity, cwd=tmp_path).returncode == 0
    assert [line.split()[1] for line in run("list", cwd=tmp_path).stdout.splitlines()] == ["revoked", "expired"]
    first, second = read(tmp_path / "api-keys.json").keys
    assert first.expires_ms is None and first.revoked_ms is not None and second.expires_ms == 1_577_836_800_000


@pytest.mark.covers("T-M7")
def test_keys_without_tls_are_refused_by_every_command_that_reads_the_settings(tmp_path: Path) -> None:
    for command in ("check-config", "start"):
        done = subprocess.run(
            [sys.executable, "-m", "mpengine.cli", command, "--set", "api.keys=true", "--set", 'api.cors_origins=["*"]'],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (3, "")
        assert "api.keys, api.host" in done.stderr and "api.behind_proxy" in done.stderr and "api.cors_origins" in done.stderr


def test_what_the_command_refuses(tmp_path: Path) -> None:
    for arguments in (("revoke", "abcd"), ("expire", "abcd", "never")):
        done = run(*arguments, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (1, "mpengine: there is no key abcd\n")
    for when in ("soon", "10", "-1d", "9999999d", "2030-13-01"):
        assert run("add", "--expires", when, cwd=tmp_path).returncode == 2
    assert run("add", "--scope", "admin", cwd=tmp_path).returncode == 2
    assert run("add", "--note", "a\tb", cwd=tmp_path).returncode == 1
    path = tmp_path / "api-keys.json"
    path.write_text(json.dumps({"keys": 1}), "utf-8")
    path.chmod(0o600)
    for arguments in (("list",), ("add",)):
        done = run(*arguments, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (1, "mpengine: the key file is no key file of version 1\n")
