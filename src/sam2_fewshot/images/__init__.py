"""Image files: one module a format, pixels read when they are asked for."""
