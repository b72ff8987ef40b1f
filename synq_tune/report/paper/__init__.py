"""Pictures of the kinds that a paper prints, as PNG files."""
