"""The NimbusImage worker: its form, its parameters, and the job on a dataset in the browser. No science."""
