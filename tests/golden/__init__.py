"""Lists that must not change unnoticed: public names and command-line options."""
