"""The rows of the operator table, a family a file: whatever a file calls ``OPERATORS`` takes part by being there."""
