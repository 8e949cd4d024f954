"""One file a scheme of URIs, and what the schemes share."""
