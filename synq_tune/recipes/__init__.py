"""Named methods as YAML files of the same schema as a space, and the one merge rule."""
