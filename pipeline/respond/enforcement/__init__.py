"""Whether the gateway obeys: the requests of keys that were acted on, watched until they tell."""
