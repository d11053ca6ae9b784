"""The Docker Engine API as ds01 reads and writes it: one route table, one reader, one writer."""
