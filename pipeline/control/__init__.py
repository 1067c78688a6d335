"""What people tell Keywatch while it runs: feedback, mutes, planned events, and the topic that carries it."""
