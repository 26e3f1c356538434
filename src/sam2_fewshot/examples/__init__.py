"""From what the user marked to a training set."""
