"""The server of a federation: who takes part, what every silo gave, and rounds of real silos."""
