"""The output folder: the journal of finished frames, the files put together from it, and what reads it back."""
