"""What a report says of a search: read from its workdir, in numbers and in words."""
