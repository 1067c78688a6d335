"""The one ordered state of all acts, the records it is made of, and the topic that holds them."""
