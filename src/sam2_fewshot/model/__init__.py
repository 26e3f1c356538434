"""SAM 2: checkpoints, devices, batched encoding and prompt decoding. The only room that knows torch."""
