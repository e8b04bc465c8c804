"""How fast the store is, measured beside other libraries and beside plain database code."""
