"""The guest: the client of the agent that is PID 1 there."""
