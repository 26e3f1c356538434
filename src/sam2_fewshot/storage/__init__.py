"""What lies on the disk beside results: whole files, locks, digests and the cache of object models."""
