"""What is done to one guest, by the agent and by the adapter for Nova alike."""
