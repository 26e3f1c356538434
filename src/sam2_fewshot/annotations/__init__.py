"""Marked objects in files: one module a format, which reads and writes it."""
