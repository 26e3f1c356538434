"""Masks, outlines and boxes. The one place that converts between array indices and pixel coordinates."""
