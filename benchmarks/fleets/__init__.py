"""Small fleets on real data, in one process: what the benchmarks on accuracy share."""
