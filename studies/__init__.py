"""Studies of igcv: benchmarks, the comparison table, tests of reliability, and their results."""
