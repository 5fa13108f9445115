"""One plain class per noun of the HTTP contract."""
