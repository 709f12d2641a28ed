"""The benchmark: ISK beside what one would use without it, on the same records, in the same run. `tests/bench/run --help`."""
