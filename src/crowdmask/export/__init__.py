"""Results for other programs and for people: COCO, tables, pictures."""
