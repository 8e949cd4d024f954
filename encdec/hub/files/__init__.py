"""Weight files on disk: each format's reader, and an atomic writer."""
