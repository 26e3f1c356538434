"""From an image to candidate masks."""
