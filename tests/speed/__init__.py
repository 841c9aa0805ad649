"""Side by side with other simulators, each in an environment of its own."""
