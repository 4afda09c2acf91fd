"""Programs and inputs to start from: read them, run them, copy them."""
