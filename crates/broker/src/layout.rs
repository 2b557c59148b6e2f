//! Another number of shards than at the last start.
//!
//! ```text
//!              export                           import
//! old number ─────────▶ all records settled ─────────────▶ new number
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

use crate::boot::{StartError, Unwanted, wait_ready};
use crate::config::Config;
use crate::data::{DataDir, DataError, sync_directory};
use crate::moving;
use crate::shards::Launch;

/// Settling everything is bounded by the journals; a disk that takes longer than this for them has stopped.
const TURN_MAX: Duration = Duration::from_secs(600);

/// Gives the partitions to the configured number of shards, if they have another.
pub(crate) fn settle_layout(
    config: &Config,
    data: &mut DataDir,
    tls: &Arc<rustls::ServerConfig>,
    unwanted: Unwanted<'_>,
) -> Result<(), StartError> {
    let wanted = config.shards();
    let old = data.manifest().shards;
    if old == wanted && !data.manifest().moving {
        return Ok(moving::remove(data.path())?);
    }
    tracing::info!(old, wanted, "the partitions move to another number of shards");
    if !data.manifest().moving {
        let exports = export(config, data, tls, unwanted)?;
        moving::write(data.path(), &exports)?;
        data.update(|manifest| manifest.moving = true)?;
    }
    import(config, data, tls, unwanted)?;
    data.update(|manifest| {
        manifest.moving = false;
        manifest.clean = true;
        manifest.shards = wanted;
    })?;
    moving::remove(data.path())?;
    tracing::info!(shards = wanted, "the partitions have moved");
    Ok(())
}

fn export(
    config: &Config,
    data: &mut DataDir,
    tls: &Arc<rustls::ServerConfig>,
    unwanted: Unwanted<'_>,
) -> Result<Vec<ShardExport>, StartError> {
    let old = data.manifest().shards;
    let handle = run(config, data, tls, vec![Boot::Export; old])?;
    // A shard that exports drains by itself.
    wait_ready(&handle, TURN_MAX, unwanted)?;
    let exports: Vec<ShardExport> = handle
        .admin(AdminQuery::Export)
        .into_iter()
        .filter_map(|(_, answer)| match answer {
            AdminAnswer::Export(export) => export.map(|export| *export),
            AdminAnswer::Status(_) => None,
        })
        .collect();
    join(handle)?;
    for (shard, export) in exports.iter().enumerate() {
        let (partitions, has_catalog) = (export.partitions.len(), export.catalog.is_some());
        tracing::info!(shard, partitions, has_catalog, "told what it holds");
    }
    if exports.len() == old {
        Ok(exports)
    } else {
        Err(StartError::Failed(format!("{} of {old} shards told what they hold", exports.len())))
    }
}

fn import(
    config: &Config,
    data: &mut DataDir,
    tls: &Arc<rustls::ServerConfig>,
    unwanted: Unwanted<'_>,
) -> Result<(), StartError> {
    let wanted = config.shards();
    let exports = moving::read(data.path())?;
    let shards = u16::try_from(wanted).expect("the number of shards is in bounds");
    let imports = reshard(&exports, shards)
        .map_err(|error| StartError::Failed(format!("the catalog that was kept cannot be read: {error}")))?;
    remove_journals(data.path())?;
    let boots = imports.into_iter().map(|import| Boot::Import(Box::new(import))).collect();
    let handle = run(config, data, tls, boots)?;
    wait_ready(&handle, TURN_MAX, unwanted)?;
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
    boots: Vec<Boot>,
) -> Result<Handle, StartError> {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Ok(Launch { config, tls, listen, tokens: &[], boots }.run(data)?.0)
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
