"""Suites of `launch.benchmark`: what is measured, by name."""
