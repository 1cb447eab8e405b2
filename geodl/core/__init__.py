"""The vocabulary: frozen types that every floor above speaks. No I/O, no torch, no Dask."""
