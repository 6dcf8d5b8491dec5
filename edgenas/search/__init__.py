"""Strategies that propose candidates, and the loop that has them scored."""
