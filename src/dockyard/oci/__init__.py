"""The oci room (to be opened)."""
