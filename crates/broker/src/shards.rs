//! What the shards are told at a start.

use std::net::SocketAddr;
use std::sync::Arc;

use corelane_model::ShardId;
use corelane_model::limits::JOURNAL_FILE_BYTES;
use corelane_reactor::{Cluster, Handle, ReactorConfig, Sockets, Spin};
use corelane_shard::{Boot, ShardConfig, TokenDigest};

use crate::access::digest;
use crate::boot::{StartError, random};
use crate::config::{Config, SHARD_MEMORY_MIN};
use crate::data::DataDir;

/// One start of the shards.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) config: &'a Config,
    pub(crate) tls: &'a Arc<rustls::ServerConfig>,
    pub(crate) listen: SocketAddr,
    pub(crate) tokens: &'a [TokenDigest],
    /// What each shard is started for: so many shards there are.
    pub(crate) boots: Vec<Boot>,
}

impl Launch<'_> {
    /// Counts the start in the manifest, durably, and starts the shards. Returns the address that clients connect to.
    pub(crate) fn run(self, data: &mut DataDir) -> Result<(Handle, SocketAddr), StartError> {
        let was_clean = data.manifest().clean;
        data.update(|manifest| {
            manifest.incarnation += 1;
            manifest.clean = false;
        })?;
        let incarnation = data.incarnation();
        tracing::info!(%incarnation, shards = self.boots.len(), was_clean, data = %data.path().display(), "starting");
        let sockets = Sockets::bind(self.listen, self.boots.len())?;
        let address = sockets[0].local_address().map_err(|error| StartError::Listen {
            protocol: "UDP",
            address: self.listen,
            option: "--listen",
            error,
        })?;
        let cpus = self.config.cores.iter().copied().cycle().take(self.boots.len()).collect();
        let reset_key = digest(format!("stateless reset {:032x}", data.data_id()?).as_bytes());
        let tls = Arc::clone(self.tls);
        let data_dir = data.path().to_owned();
        let shard_configs = self.shard_configs(data, was_clean)?;
        let seed = random()?;
        let spin = Spin::Adaptive;
        let config = ReactorConfig { data_dir, cpus, sockets, tls, shard_configs, spin, reset_key, seed };
        Ok((Cluster::start(config)?, address))
    }

    fn shard_configs(self, data: &DataDir, was_clean: bool) -> Result<Vec<ShardConfig>, StartError> {
        let Self { config, tokens, boots, .. } = self;
        let shards = u16::try_from(boots.len()).expect("the number of shards is in bounds");
        let data_id = data.data_id()?;
        let all_bytes = config.shard_memory_bytes.saturating_mul(config.shards() as u64);
        let configs = boots.into_iter().enumerate().map(|(index, boot)| ShardConfig {
            shard: ShardId(u8::try_from(index).expect("the number of shards is in bounds")),
            shards,
            data_id,
            incarnation: data.incarnation(),
            was_clean,
            // More shards than the memory was checked for run only while their number changes.
            memory_bytes: (all_bytes / u64::from(shards)).max(SHARD_MEMORY_MIN),
            journal_files: config.journal_files,
            journal_file_bytes: JOURNAL_FILE_BYTES,
            tokens: tokens.to_vec(),
            boot,
        });
        Ok(configs.collect())
    }
}
