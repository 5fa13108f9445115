"""Which setting restarts whom: a table."""

from __future__ import annotations

import pytest

from mpengine.config import ConfigError
from supervisor.plan import build
from supervisor.reload import Change, compare
from tests.supervisor.test_plan import settings

ENGINES = ("engine-BTC", "engine-ETH", "engine-SOL")
ALL = Change(all=True)


@pytest.mark.covers("P12", "P7")
@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("", Change()),
        ("[supervisor]\nhang_after_s = 4.0\n", Change(hangup=("api-master",))),
        ("[api]\ncache_entries = 5\n", Change(hangup=("api-master",))),
        ("[api]\nport = 9999\n", Change(restart=("api-master",))),
        ("[engine]\nprice_reject_pct = 0.4\n", Change(restart=ENGINES, hangup=("api-master",))),
        ("[ingest]\nflush_ms = 5.0\n", Change(restart=("ingest",), hangup=("api-master",))),
        ("[capture]\nenabled = true\n", Change(restart=("ingest",), hangup=("api-master",))),
        ("[venues.binance]\nbook_ticker = true\n", Change(restart=("ingest",), hangup=("api-master",))),
        ("[log]\nlevel = 'DEBUG'\n", Change(restart=(*ENGINES, "ingest"), hangup=("api-master",))),
        (
            "[symbols.BTC]\n[symbols.ETH]\nstep = 2.0\n[symbols.SOL]\n",
            Change(restart=("engine-ETH", "ingest"), hangup=("api-master",)),
        ),
        ("[symbols.BTC]\n[symbols.ETH]\n", ALL),
        ("[symbols.BTC]\n[symbols.ETH]\n[symbols.SOL]\n[symbols.DOGE]\nstep = 1.0\ntick = 0.1\n", ALL),
        ("[api]\nworkers = 3\n", ALL),
        ("[engine]\nring_units = 8192\n", ALL),
        ("[simulator]\nenabled = true\n", ALL),
    ],
)
def test_change_table(text: str, change: Change) -> None:
    assert compare(build(settings()), build(settings(text))) == change


def test_what_a_running_supervisor_hangs_on_cannot_change() -> None:
    with pytest.raises(ConfigError) as refused:
        compare(build(settings()), build(settings("[instance]\nname = 'b'\ndata_dir = '/b'\n")))
    assert [text.split(":")[0] for text in refused.value.violations] == ["instance.name", "instance.data_dir"]


def test_changes_in_words() -> None:
    assert str(Change()) == "nothing changes for any child"
    assert str(Change(restart=("a", "b"), hangup=("c",))) == "restart a, b; roll c"
    assert "layout" in str(ALL)
