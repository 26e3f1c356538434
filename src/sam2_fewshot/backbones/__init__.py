"""Image encoders with prompts, one package each. The only place that knows torch."""
