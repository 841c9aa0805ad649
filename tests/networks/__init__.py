"""Networks that people really use, written once for each framework; ``python -m tests.networks`` prints the table."""
