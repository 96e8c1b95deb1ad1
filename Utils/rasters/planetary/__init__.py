"""Products of planetary archives: names, labels, values that mean no data, and whether a file is whole."""
