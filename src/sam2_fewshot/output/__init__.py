"""The output folder: the journal of finished frames, the files assembled from it, and what reads them back."""
