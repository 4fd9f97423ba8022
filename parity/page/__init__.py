"""A document of the suite in parts, and what the HTML page is made of."""
