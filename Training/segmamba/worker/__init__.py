"""The worker: a child process that keeps a model loaded and segments cases. PROTOCOL.md says how it talks."""
