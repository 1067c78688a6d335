"""What people ask of what Keywatch has found, and the answers."""
