"""How many bits each layer gets, under a budget and without data."""
