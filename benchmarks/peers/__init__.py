"""Other meta-learning libraries, in an environment of their own: see install.py."""
