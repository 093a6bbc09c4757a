"""Signatures, encryption, bill of materials, escaping of foreign text."""
