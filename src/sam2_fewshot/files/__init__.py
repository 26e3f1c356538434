"""A run on the user's own files: the request, its plan, the output folder, and corrections of earlier results."""
