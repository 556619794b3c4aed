"""Layer-wise relevance propagation for face networks: what Zennit lacks for them."""
