"""What `python -m minisd evaluate --suite NAME` measures. One file, one system.

A file has measure(pipe, judge, samples, seed) -> plain numbers for JSON, and tables(results).
"""
