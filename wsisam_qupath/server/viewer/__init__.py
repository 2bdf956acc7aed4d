"""The page in a browser that shows a slide, and outlines what is clicked on it."""
