"""`mpengine plot`: the heatmap of a time range as a PNG, without a browser.

    command.py   what a person asks for, what goes wrong
    fetch.py     public API ──▶ answers
    scene.py     answers ──▶ what is to be shown: cells, scales, candles, gaps, texts    pure
    ticks.py     round numbers and times, USD and ages as texts                          pure
    layout.py    where everything goes; no two boxes overlap                             pure
    paint.py     Pillow, and nothing else of it anywhere

It reads the API as any client does. Arrow before: `mpengine.client`; behind: a file. Pillow is the extra `plot` and is imported
when there is something to paint.
"""
