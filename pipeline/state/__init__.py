"""All that a partition knows, in memory and on its way to the log and back."""
