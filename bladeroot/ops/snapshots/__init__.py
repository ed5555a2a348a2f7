"""Where OS trees come from: made from packages, adopted, or captured from a running machine."""
