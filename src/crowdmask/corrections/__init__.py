"""People's edits: their files, what they do to masks, and reports."""
