"""Names that ordinary models hold, exact in module and name, a library a file. Nothing here is ever imported: they are only compared."""
