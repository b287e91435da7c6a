"""Where large bytes rest: the file system, or an object store's bucket."""
