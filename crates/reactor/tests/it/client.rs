//! A client that speaks frames over quinn.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use corelane_reactor::floor::{FloorServerConfig, serve};
use corelane_reactor::{Handle, Sockets, Spin};
use corelane_wire::{Frame, FrameDecoder, OutFrame};
use quinn::{ClientConfig, Connection, ConnectionId, Endpoint, RecvStream, SendStream};

pub(crate) struct Server {
    pub(crate) handle: Handle,
    pub(crate) address: SocketAddr,
    certificate: rustls::pki_types::CertificateDer<'static>,
    _directory: tempfile::TempDir,
}

pub(crate) fn tls() -> (Arc<rustls::ServerConfig>, rustls::pki_types::CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    config.alpn_protocols = vec![corelane_wire::ALPN.to_vec()];
    (Arc::new(config), certificate)
}

pub(crate) fn directory() -> tempfile::TempDir {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(target).unwrap();
    tempfile::tempdir_in(target).unwrap()
}

pub(crate) fn server(shards: usize) -> Server {
    corelane_reactor::prepare_process();
    let directory = directory();
    let (tls, certificate) = tls();
    let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap(), shards).unwrap();
    let address = sockets[0].local_address().unwrap();
    let config = FloorServerConfig {
        directory: directory.path().to_owned(),
        cpus: Vec::new(),
        sockets,
        tls,
        spin: Spin::Adaptive,
        partitions: 8,
        batch_records: 100,
        value_bytes: 100,
    };
    let handle = serve(config).unwrap();
    assert_eq!(handle.wait_ready(std::time::Duration::from_secs(20)), Ok(true));
    Server { handle, address, certificate, _directory: directory }
}

pub(crate) struct Client {
    pub(crate) endpoint: Endpoint,
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    pub(crate) control: Reader,
}

pub(crate) struct Reader {
    stream: RecvStream,
    decoder: FrameDecoder,
}

impl Reader {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self { stream, decoder: FrameDecoder::default() }
    }

    pub(crate) async fn frame(&mut self) -> Frame {
        loop {
            if let Some(frame) = self.decoder.poll_frame().unwrap() {
                return frame;
            }
            self.decoder.push(self.stream.read_chunk(usize::MAX, true).await.unwrap().unwrap().bytes);
        }
    }
}

impl Server {
    /// Connects to the shard that the first byte of the first connection id names.
    pub(crate) async fn connect(&self, shard: u8) -> Client {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![corelane_wire::ALPN.to_vec()];
        let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let mut config = ClientConfig::new(Arc::new(tls));
        let mut transport = quinn::TransportConfig::default();
        transport.initial_mtu(1452).max_concurrent_uni_streams(quinn::VarInt::from_u32(64));
        config.transport_config(Arc::new(transport));
        config.initial_dst_cid_provider(Arc::new(move || {
            let mut id = [0; 16];
            id[1..].copy_from_slice(&std::process::id().to_le_bytes().repeat(4)[..15]);
            let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos();
            id[4..8].copy_from_slice(&nanos.to_le_bytes());
            id[0] = shard;
            ConnectionId::new(&id)
        }));
        let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let connection = endpoint.connect_with(config, self.address, "localhost").unwrap().await.unwrap();
        let (send, receive) = connection.open_bi().await.unwrap();
        Client { endpoint, connection, send, control: Reader::new(receive) }
    }
}

impl Client {
    pub(crate) async fn write(&mut self, frame: OutFrame) {
        write(&mut self.send, frame).await;
    }
}

pub(crate) async fn write(stream: &mut SendStream, frame: OutFrame) {
    let mut pieces: Vec<_> = frame.into_pieces().collect();
    stream.write_all_chunks(&mut pieces).await.unwrap();
}
