"""Networks as torch.fx graphs: traced, made plain, and asked what each operation is."""
