"""One small file per peer, each with ``build(work, threads)``; see `benchmarks.works` for what differs between them."""
