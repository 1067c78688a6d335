"""From simulate to enforce: what a policy has earned, its steps, and the way back."""
