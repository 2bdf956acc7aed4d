"""What a run shows and leaves for people: pictures, tables, pages, progress."""
