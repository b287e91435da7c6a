"""BuildKit's messages as ``*.proto``, and what protoc made of them (``scripts/genproto``; not to be edited)."""
