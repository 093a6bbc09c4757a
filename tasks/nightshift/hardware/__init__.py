"""The processor: its name, cores, threads and instruction sets; needs the standard library only."""
