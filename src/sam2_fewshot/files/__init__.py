"""The runner's end for a person's own files: requests, the output folder, and what is read back from it."""
