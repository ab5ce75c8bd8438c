"""Generated stubs of proto/sidecar/v1, nothing else. `make stubs` writes them."""
