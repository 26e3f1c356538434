"""From the marked examples to a training set."""
