"""The parts of a page, one file each: a function from the study's material to a `Section`."""
