//! Scenarios, open-loop pacer, workers, measure, report.
