"""One module a framework: the same agents, as its own users write them."""
