"""One run: learn the examples, search frames and blocks in this process or on a Dask cluster, and resume."""
