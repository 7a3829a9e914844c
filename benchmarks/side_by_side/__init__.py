"""histoproof beside what its users would otherwise take, in one run: `python benchmarks/bench.py`, docs/side-by-side.md."""
