//! Clock, disk, network of frames, faults, workload, oracle, checkers.
