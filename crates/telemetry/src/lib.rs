//! Counters, histograms, one list of events; merging over shards; text exposition.
