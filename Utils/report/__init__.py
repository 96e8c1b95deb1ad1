"""Reports to look at: one self-contained HTML page with tables, pictures, sliders, curves and facts."""
