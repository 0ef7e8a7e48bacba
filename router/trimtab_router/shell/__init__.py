"""I/O around the core: sockets, the ONNX session, files, metrics."""
