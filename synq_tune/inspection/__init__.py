"""What will be quantized, layer by layer, and what stays float and why."""
