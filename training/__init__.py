"""Training pipeline of the embedded checkpoint; a development tool, not part of the installed package."""
