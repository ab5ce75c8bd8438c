"""Generated from `proto/sidecar/enforce/envoy/v3/*.proto` by `make stubs`; nothing else."""
