"""Maps as pictures: panels, comparisons, relief."""
