"""Ways to detect objects: each learns from examples and detects their like on a frame."""
