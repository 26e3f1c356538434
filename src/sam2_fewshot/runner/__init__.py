"""One run: plan, learn, search frames and blocks in this process or on a Dask cluster, resume."""
