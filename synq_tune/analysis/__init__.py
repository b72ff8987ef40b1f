"""Pictures and tables that explain a study; the only room that draws."""
