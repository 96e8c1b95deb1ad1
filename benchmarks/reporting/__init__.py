"""What is made of the measurements: tables, bars, pictures."""
