"""How files travel in a chat, or in a chat that is a line of a batch: which deployments can be given them, and how."""
