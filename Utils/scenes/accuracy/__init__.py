"""How accurate a whole scene's heights are: maps on one grid, scores, tables and a figure."""
