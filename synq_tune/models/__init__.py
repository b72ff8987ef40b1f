"""Teachers: how a pre-trained network is built, loaded, traced and described."""
