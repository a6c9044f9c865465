"""``python -m benchmarks.NAME [--quick] [--json FILE]``: a table, and flat figures in the words of DESIGN section 7."""
