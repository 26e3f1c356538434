"""Ways to find objects: each learns from examples and finds their like on a frame."""
