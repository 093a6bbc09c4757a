"""Nightshift: nightly retraining for image classifiers. One stage, one file, one verb."""

__version__ = "0.1.0"
