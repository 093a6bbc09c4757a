"""Benchmarks, metrics, selection and the gates of promotion."""
