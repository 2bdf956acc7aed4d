"""What people see of a run: pictures, tables, pages, progress bars."""
