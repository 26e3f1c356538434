"""How channels, a caller's array and a viewer's layers become 8-bit RGB."""
