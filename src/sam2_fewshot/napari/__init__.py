"""A napari plugin: mark objects on an image, find similar ones, and correct what was found (see ``napari.yaml``)."""
