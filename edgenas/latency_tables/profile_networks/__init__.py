"""Networks that teach a table: about one operator each, chains of operators, and ones like published ones."""
