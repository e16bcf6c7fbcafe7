"""Instance masks from head points."""
