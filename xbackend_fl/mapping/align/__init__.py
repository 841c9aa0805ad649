"""Evidence proposes where forms differ: partners, orders of features and of rows, and what one side holds in one tensor."""
