use super::*;
use crate::quantity::Span;

fn machine() -> Machine {
    Machine {
        cores: vec![0, 1, 2, 3],
        quota_cores: None,
        memory_bytes: 8 << 30,
        data_home: Some(PathBuf::from("/home/ada/.local/share")),
    }
}

fn check(raw: RawConfig) -> Result<Config, Vec<Problem>> {
    Config::check(raw, &machine()).map_err(|problems| problems.0)
}

#[test]
fn defaults_follow_the_machine() {
    let config = check(RawConfig::default()).unwrap();
    assert_eq!(config.cores, [0, 1, 2, 3]);
    assert_eq!(config.shard_memory_bytes, 512 << 20);
    assert_eq!(config.journal_files, 16);
    assert_eq!(config.data, PathBuf::from("/home/ada/.local/share/corelane"));
    assert_eq!(config.listen.to_string(), "127.0.0.1:7420");
    assert!(config.warnings.is_empty());
    let small = Machine { memory_bytes: 1 << 30, quota_cores: Some(1), ..machine() };
    let config = Config::check(RawConfig::default(), &small).unwrap();
    assert_eq!((config.shards(), config.journal_files), (1, 8));
}

#[test]
fn everything_that_does_not_fit_is_reported_at_once() {
    let raw = RawConfig {
        listen: Some("0.0.0.0:7420".parse().unwrap()),
        admin: Some("0.0.0.0:7421".parse().unwrap()),
        shards: Some(3),
        cores: Some(vec![0, 9]),
        memory: Some(ByteSize(1 << 20)),
        journal_files: Some(2),
        tls_key: Some("key.pem".into()),
        drain: Some(Span(Duration::ZERO)),
        ..RawConfig::default()
    };
    let problems = Problems(check(raw).unwrap_err());
    let text = problems.to_string();
    assert_eq!(problems.0.len(), 8, "{text}");
    for part in [
        "0.0.0.0:7420",
        "insecure_admin",
        "cores lists 2",
        "core 9",
        "1MiB",
        "journal_files = 2",
        "tls_certificate",
        "drain",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
}

#[test]
fn listening_beyond_loopback_needs_a_word_about_who_may_come() {
    let raw = RawConfig { listen: Some("[::]:7420".parse().unwrap()), ..RawConfig::default() };
    assert!(matches!(check(raw.clone()).unwrap_err()[..], [Problem::ListenBeyondLoopback { .. }]));
    let with_token = RawConfig { token_file: Some("tokens".into()), ..raw.clone() };
    assert_eq!(check(with_token.clone()).unwrap().access, Access::TokenFile("tokens".into()));
    let insecure = RawConfig { insecure_no_auth: Some(true), ..raw };
    assert_eq!(check(insecure).unwrap().access, Access::Anybody);
    let both = RawConfig { insecure_no_auth: Some(true), ..with_token };
    assert!(matches!(check(both).unwrap_err()[..], [Problem::TokenAndInsecure { .. }]));
}

#[test]
fn the_journal_must_fit_into_memory() {
    let raw = RawConfig {
        shards: Some(2),
        memory: Some(ByteSize(512 << 20)),
        journal_files: Some(16),
        ..RawConfig::default()
    };
    let problems = check(raw.clone()).unwrap_err();
    assert!(matches!(problems[..], [Problem::JournalAndMemory { files: 16, .. }]), "{problems:?}");
    assert_eq!(check(RawConfig { journal_files: Some(8), ..raw.clone() }).unwrap().journal_files, 8);
    assert_eq!(check(RawConfig { journal_files: None, ..raw }).unwrap().journal_files, 8);
}

#[test]
fn more_shards_than_cores_work_with_a_warning() {
    let config = check(RawConfig { shards: Some(6), ..RawConfig::default() }).unwrap();
    assert_eq!(config.cores, [0, 1, 2, 3, 0, 1]);
    assert_eq!(config.warnings.len(), 1);
}

#[test]
fn a_core_is_listed_once() {
    let twice = RawConfig { cores: Some(vec![0, 1, 0]), ..RawConfig::default() };
    let problems = check(twice).unwrap_err();
    assert!(matches!(problems[..], [Problem::CoreTwice { core: 0, times: 2 }]), "{problems:?}");
    assert_eq!(check(RawConfig { cores: Some(vec![1, 0]), ..RawConfig::default() }).unwrap().cores, [1, 0]);
}

#[test]
fn directives_of_the_log_are_understood_before_anything_starts() {
    let raw = RawConfig { log: Some("noise=x=y".to_owned()), ..RawConfig::default() };
    let problems = Problems(check(raw).unwrap_err()).to_string();
    assert!(problems.contains("noise=x=y") && problems.contains("info,corelane_shard=debug"), "{problems}");
}

#[test]
fn shards_have_bounds() {
    assert!(matches!(
        check(RawConfig { shards: Some(0), ..RawConfig::default() }).unwrap_err()[..],
        [Problem::Shards { .. }]
    ));
    let many = RawConfig { shards: Some(257), ..RawConfig::default() };
    assert!(matches!(check(many).unwrap_err()[..], [Problem::Shards { shards: 257, most: 256 }]));
}
