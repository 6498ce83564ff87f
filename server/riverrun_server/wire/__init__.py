"""Between protobuf bytes and the values that the machines speak of."""
