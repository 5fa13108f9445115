"""`mpengine top`: the terminal view. A source, a pure view model, and two ways to show it.

    local.py   board, documents, rings of this machine ──┐
    remote.py  public API: requests and push ────────────┼──▶ Facts (model.py) ──▶ lines (view.py, badge.py, strip.py) ──▶ app.py
    recording.py  a file of earlier facts ───────────────┘          └──▶ schema.py: `--once --json`                   └──▶ `--once`

It reads and nothing else: no lock, no file of the instance is written, no engine waits for it. Textual is imported by `app` and
`widgets` only, so that everything but the full-screen view works without it.
"""
