"""`medserl serve`: a local web page on which a person reviews what a model found, and the same as a JSON API."""
