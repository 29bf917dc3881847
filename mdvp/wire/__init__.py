"""How the engine reaches us: the protocol, the server, the sockets, and how it learns of them."""
