//! How many shards and journal files there are, and how another number than at the last start comes about.
//!
//! ```text
//!              export                           import
//! old layout ─────────▶ all records settled ─────────────▶ new layout
//!  journals             `moving` written                   new journals
//!                       ▲                                  ▲
//!           from here on the old journals are void         from here on `moving` is void
//! ```
//!
//! Both turns are one durable change of the manifest, so that a crash at any moment leaves one of the two complete. The
//! shards that export and import hear no client: their port is known to nobody.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use corelane_reactor::Handle;
use corelane_shard::{AdminAnswer, AdminQuery, Boot, ShardExport, reshard};

use crate::boot::{StartError, wait_ready};
use crate::config::{Config, journal_files_max};
use crate::data::{DataDir, DataError, Manifest, sync_directory};
use crate::moving;
use crate::shards::Launch;

/// Settling everything is bounded by the journals; a disk that takes longer than this for them has stopped.
const TURN_MAX: Duration = Duration::from_secs(600);

/// How many shards there are, and journal files of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) shards: usize,
    pub(crate) journal_files: u32,
}

impl Layout {
    /// The layout that a data directory should have.
    pub(crate) fn wanted(config: &Config, manifest: &Manifest) -> Self {
        let keeps = config.is_journal_default && manifest.journal_files <= journal_files_max(config.shard_memory_bytes);
        let journal_files = if keeps { manifest.journal_files } else { config.journal_files };
        Self { shards: config.shards(), journal_files }
    }

    const fn of(manifest: &Manifest) -> Self {
        Self { shards: manifest.shards, journal_files: manifest.journal_files }
    }
}

/// Gives the directory the wanted layout, if it has another.
pub(crate) fn settle_layout(
    config: &Config,
    data: &mut DataDir,
    tls: &Arc<rustls::ServerConfig>,
    wanted: Layout,
) -> Result<(), StartError> {
    let old = Layout::of(data.manifest());
    if old == wanted && !data.manifest().moving {
        return Ok(moving::remove(data.path())?);
    }
    tracing::info!(?old, ?wanted, "the data directory gets another layout");
    if !data.manifest().moving {
        let exports = export(config, data, tls, old)?;
        moving::write(data.path(), &exports)?;
        data.update(|manifest| manifest.moving = true)?;
    }
    import(config, data, tls, wanted)?;
    data.update(|manifest| {
        manifest.moving = false;
        manifest.clean = true;
        manifest.shards = wanted.shards;
        manifest.journal_files = wanted.journal_files;
    })?;
    moving::remove(data.path())?;
    tracing::info!(?wanted, "the data directory has its new layout");
    Ok(())
}

fn export(
    config: &Config,
    data: &mut DataDir,
    tls: &Arc<rustls::ServerConfig>,
    old: Layout,
) -> Result<Vec<ShardExport>, StartError> {
    let handle = run(config, data, tls, old, vec![Boot::Export; old.shards])?;
    // A shard that exports drains by itself.
    wait_ready(&handle, TURN_MAX)?;
    let exports: Vec<ShardExport> = handle
        .admin(AdminQuery::Export)
        .into_iter()
        .filter_map(|(_, answer)| match answer {
            AdminAnswer::Export(export) => export.map(|export| *export),
            AdminAnswer::Status(_) => None,
        })
        .collect();
    join(handle)?;
    if exports.len() == old.shards {
        Ok(exports)
    } else {
        Err(StartError::Failed(format!("{} of {} shards told what they hold", exports.len(), old.shards)))
    }
}

fn import(
    config: &Config,
    data: &mut DataDir,
    tls: &Arc<rustls::ServerConfig>,
    wanted: Layout,
) -> Result<(), StartError> {
    let exports = moving::read(data.path())?;
    let shards = u16::try_from(wanted.shards).expect("the number of shards is in bounds");
    let imports = reshard(&exports, shards)
        .map_err(|error| StartError::Failed(format!("the catalog that was kept cannot be read: {error}")))?;
    remove_journals(data.path())?;
    let boots = imports.into_iter().map(|import| Boot::Import(Box::new(import))).collect();
    let handle = run(config, data, tls, wanted, boots)?;
    wait_ready(&handle, TURN_MAX)?;
    match handle.drain(TURN_MAX) {
        Ok(true) => join(handle),
        Ok(false) => Err(StartError::Failed(format!("the shards did not write their journals within {TURN_MAX:?}"))),
        Err(failure) => Err(StartError::Failed(failure.to_string())),
    }
}

/// Starts shards on a port that nobody knows.
fn run(
    config: &Config,
    data: &mut DataDir,
    tls: &Arc<rustls::ServerConfig>,
    layout: Layout,
    boots: Vec<Boot>,
) -> Result<Handle, StartError> {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Ok(Launch { config, tls, layout, listen, tokens: &[], boots }.run(data)?.0)
}

fn join(handle: Handle) -> Result<(), StartError> {
    handle.join().map_err(|failure| StartError::Failed(failure.to_string()))
}

fn remove_journals(data: &Path) -> Result<(), DataError> {
    let path = data.join("journal");
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(DataError::Io { action: "remove", path, error })
        }
        _ => sync_directory(data),
    }
}
