//! Bounds of a topic's settings.

use corelane_model::limits::{
    DEDUP_COUNT_MAX, DEDUP_WINDOW_MAX, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, TOPIC_RETENTION_BYTES_MAX,
    TOPIC_RETENTION_BYTES_MIN, TOPIC_RETENTION_MAX,
};
use corelane_model::{Cleanup, TopicClass, TopicSettings};

use crate::CatalogError;

const RETENTION_MS_MAX: u64 = TOPIC_RETENTION_MAX.as_secs() * 1000;

/// Holds settings against their bounds.
///
/// # Errors
/// The first one that is out of its bounds, with the bounds.
pub fn check_settings(settings: &TopicSettings) -> Result<(), CatalogError> {
    let within = |setting, value, min, max| {
        if min <= value && value <= max { Ok(()) } else { Err(CatalogError::OutOfBounds { setting, value, min, max }) }
    };
    within("segment size in bytes", settings.segment_bytes, SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)?;
    if let Some(retention_ms) = settings.retention_ms {
        within("retention in milliseconds", retention_ms, 1, RETENTION_MS_MAX)?;
    }
    if let Some(retention_bytes) = settings.retention_bytes {
        within("retention in bytes", retention_bytes, TOPIC_RETENTION_BYTES_MIN, TOPIC_RETENTION_BYTES_MAX)?;
    }
    within("grace time of null values in milliseconds", settings.tombstone_ms, 0, RETENTION_MS_MAX)?;
    check_cleanup(settings)?;
    if let Some(window_ms) = settings.dedup_window_ms {
        within("deduplication window in milliseconds", window_ms, 1, DEDUP_WINDOW_MAX.as_secs() * 1000)?;
    }
    if let Some(count) = settings.dedup_count {
        within("deduplication count", count, 1, DEDUP_COUNT_MAX)?;
    }
    if settings.has_message_ids() && (settings.cleanup != Cleanup::Delete || settings.class == TopicClass::Latest) {
        return Err(CatalogError::DedupOfNewest);
    }
    Ok(())
}

fn check_cleanup(settings: &TopicSettings) -> Result<(), CatalogError> {
    if settings.cleanup == Cleanup::Delete {
        return Ok(());
    }
    if !settings.class.is_durable() {
        return Err(CatalogError::CompactedMemory);
    }
    if settings.retention_ms.is_some() || settings.retention_bytes.is_some() {
        return Err(CatalogError::CompactedRetention);
    }
    Ok(())
}
