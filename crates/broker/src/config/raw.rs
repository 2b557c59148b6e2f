//! The settings as a person writes them, each with its documentation.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize as _;
use toml::Spanned;
use toml::de::DeTable;

use crate::quantity::{ByteSize, Span};

/// The documentation of one setting; docs/configuration.md is made from these.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name in the file; the command line writes `-` for `_`.
    pub name: &'static str,
    /// What it means, a line each.
    pub doc: &'static [&'static str],
    /// What holds when it is not set.
    pub default: &'static str,
    /// A value as it stands in a file.
    pub example: &'static str,
}

macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty, default $default:literal, example $example:literal;)*) => {
        /// The settings of a broker as they stand in a configuration file or on the command line: nothing in it has been
        /// held against anything else yet. A field that is not set is `None`; a field that does not exist is refused.
        #[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct RawConfig {
            $($(#[doc = $doc])+ pub $name: Option<$type>,)*
        }

        /// Every setting, in the order of the file.
        pub const SETTINGS: &[Setting] = &[
            $(Setting { name: stringify!($name), doc: &[$($doc),+], default: $default, example: $example },)*
        ];

        impl RawConfig {
            /// These settings, and those of `under` where these say nothing.
            #[must_use]
            pub fn over(self, under: Self) -> Self {
                Self { $($name: self.$name.or(under.$name),)* }
            }
        }
    };
}

settings! {
    /// The data directory. It belongs to one broker at a time; it is made when it does not exist.
    data: PathBuf, default "`$XDG_DATA_HOME/corelane`, else `~/.local/share/corelane`", example "\"/var/lib/corelane\"";
    /// UDP address for clients. Port 0 takes a free one. An address beyond loopback needs `token_file` or
    /// `insecure_no_auth`.
    listen: SocketAddr, default "`127.0.0.1:7420`", example "\"127.0.0.1:7420\"";
    /// TCP address of the admin listener: `/healthz`, `/readyz`, `/metrics`, `/status`. It asks nobody who they are, so an
    /// address beyond loopback needs `insecure_admin`.
    admin: SocketAddr, default "`127.0.0.1:7421`", example "\"127.0.0.1:7421\"";
    /// Shards: one thread on one core each. Another number than at the last start moves the partitions.
    shards: usize, default "the cores that the broker may use, by affinity and by the control group's quota", example "2";
    /// Cores for the shards, one each, in this order.
    cores: Vec<usize>, default "those that the broker may use, whole cores before their second threads", example "[0, 1]";
    /// Memory for records that are not in segments yet, for reads and for sessions, over all shards.
    memory: ByteSize, default "a quarter of what the process may use, at most 1GiB for each shard", example "\"1GiB\"";
    /// Journal files of 16 MiB for each shard. All of them may have to be read at a start after a crash.
    journal_files: u32, default "16, fewer when `memory` is small", example "16";
    /// File with the tokens that clients may show, one a line; empty lines and lines that begin with `#` are skipped.
    token_file: PathBuf, default "not set: no token is asked for", example "\"/etc/corelane/tokens\"";
    /// Lets anybody who reaches `listen` do anything, also beyond loopback.
    insecure_no_auth: bool, default "false", example "false";
    /// Lets anybody who reaches `admin` read metrics and status, also beyond loopback.
    insecure_admin: bool, default "false", example "false";
    /// Certificate chain of the broker, PEM. Goes with `tls_key`.
    tls_certificate: PathBuf, default "a development certificate that the broker makes at its first start",
        example "\"/etc/corelane/tls/chain.pem\"";
    /// Private key of the certificate, PEM.
    tls_key: PathBuf, default "the development certificate's", example "\"/etc/corelane/tls/key.pem\"";
    /// How long a shutdown may take from the first signal until the process ends anyway.
    drain: Span, default "`20s`", example "\"20s\"";
    /// What is logged: `error`, `warn`, `info`, `debug`, or directives such as `info,corelane_shard=debug`.
    log: String, default "`info`", example "\"info\"";
}

/// Why a configuration file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refuses it.
    #[error("cannot read the configuration file {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        error: std::io::Error,
    },
    /// It is not a configuration file; the text shows the places.
    #[error("configuration file {}:{error}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong and where.
        error: ParseError,
    },
}

/// Everything that is wrong with the text of a configuration file, a line each; and what is left of it.
#[derive(Clone, Debug, Default)]
pub struct ParseError {
    /// Lines of the text, counted from 1, and what is wrong there.
    pub wrong: Vec<(usize, String)>,
    /// The settings that are right, so that they can be held against each other all the same.
    pub rest: Box<RawConfig>,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.wrong.iter().try_for_each(|(line, wrong)| write!(f, "\n  - line {line}: {wrong}"))
    }
}

impl std::error::Error for ParseError {}

impl ParseError {
    fn add(&mut self, text: &str, at: usize, wrong: String) {
        let before = text.get(..at).unwrap_or(text);
        self.wrong.push((before.matches('\n').count() + 1, wrong));
    }
}

impl RawConfig {
    /// The settings in a TOML text.
    ///
    /// # Errors
    /// The text is not TOML, names settings that do not exist, or gives some a value of another type: all of these, and the other
    /// settings.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut errors = ParseError::default();
        let (table, broken) = DeTable::parse_recoverable(text);
        if !broken.is_empty() {
            for error in broken {
                errors.add(text, error.span().map_or(0, |span| span.start), error.message().to_owned());
            }
            return Err(errors);
        }
        let mut settings = Self::default();
        let span = table.span();
        // One after another, because a deserializer stops at the first that it does not understand.
        for (name, value) in table.into_inner() {
            let (at, named) = (name.span().start, name.get_ref().to_string());
            let mut alone = DeTable::new();
            alone.insert(name, value);
            match Self::deserialize(toml::Deserializer::from(Spanned::new(span.clone(), alone))) {
                Ok(setting) => settings = settings.over(setting),
                Err(error) => errors.add(text, at, format!("{named}: {}", error.message())),
            }
        }
        if errors.wrong.is_empty() {
            return Ok(settings);
        }
        errors.wrong.sort();
        errors.rest = Box::new(settings);
        Err(errors)
    }

    /// The settings in a file.
    ///
    /// # Errors
    /// The file cannot be read, or as [`Self::parse`].
    pub fn read(path: &std::path::Path) -> Result<Self, FileError> {
        let text = std::fs::read_to_string(path).map_err(|error| FileError::Read { path: path.to_owned(), error })?;
        Self::parse(&text).map_err(|error| FileError::Parse { path: path.to_owned(), error })
    }
}

/// docs/configuration.md as it must read.
#[must_use]
pub fn reference() -> String {
    use std::fmt::Write;

    let mut out = String::from(
        "# Configuration\n\n\
         <!-- Made from the doc comments in crates/broker/src/config/raw.rs; a test compares. To write it anew:\n     \
         CORELANE_WRITE_DOCS=1 cargo test -p corelane-broker configuration -->\n\n\
         `corelane serve --config FILE` reads these settings from a TOML file. Each is also an option of the command line, \
         with `-` for `_`; what the command line says goes before the file. A setting that does not exist is refused, and \
         everything that does not fit together is reported at once. Sizes are written as `512MiB` or `10GiB`, times as \
         `250ms`, `30s` or `7d`.\n",
    );
    for setting in SETTINGS {
        let doc = setting.doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join("\n");
        write!(
            out,
            "\n## `{}`\n\n{doc}\n\nDefault: {}.\n\n```toml\n{} = {}\n```\n",
            setting.name, setting.default, setting.name, setting.example
        )
        .expect("a String takes everything");
    }
    out.push_str(
        "\n## Environment variables\n\n\
         They stand for an option that is not given; an option goes before its variable, and a variable before the file.\n\n\
         | variable | option | of |\n| --- | --- | --- |\n\
         | `CORELANE_LOG` | `--log` | `corelane serve`, `corelane doctor` |\n\
         | `CORELANE_BROKER` | `--broker` | every command that talks to a broker |\n\
         | `CORELANE_TOKEN_FILE` | `--token-file`: the token to show | every command that talks to a broker; not `corelane serve` |\n\
         | `CORELANE_ADMIN` | `--admin` | `corelane status` |\n",
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_a_valid_setting() {
        for setting in SETTINGS {
            let text = format!("{} = {}", setting.name, setting.example);
            let parsed = RawConfig::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_ne!(parsed, RawConfig::default(), "{text}");
        }
    }

    #[test]
    fn an_unknown_setting_is_refused_with_its_place_and_the_known_ones() {
        let error = RawConfig::parse("shards = 2\nsharts = 3\n").unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
        assert!(error.contains("sharts") && error.contains("`shards`"), "{error}");
    }

    #[test]
    fn everything_that_is_wrong_with_a_file_is_said_at_once() {
        let text = "sharts = 3\nshards = 2\nmemory = \"lots\"\ndrain = 20\n[log]\nlevel = \"info\"\n";
        let error = RawConfig::parse(text).unwrap_err();
        let lines: Vec<usize> = error.wrong.iter().map(|&(line, _)| line).collect();
        assert_eq!(lines, [1, 3, 4, 5], "{error}");
        assert_eq!(*error.rest, RawConfig { shards: Some(2), ..RawConfig::default() });
        let broken = RawConfig::parse("shards = 2\nmemory = = 3\n").unwrap_err();
        assert_eq!(broken.wrong[0].0, 2, "{broken}");
    }

    #[test]
    fn a_wrong_type_says_what_would_be_right() {
        let error = RawConfig::parse("memory = \"lots\"").unwrap_err().to_string();
        assert!(error.contains("512MiB"), "{error}");
        let error = RawConfig::parse("drain = 20").unwrap_err().to_string();
        assert!(error.contains("30s"), "{error}");
    }

    #[test]
    fn the_command_line_goes_before_the_file() {
        let file = RawConfig { shards: Some(4), log: Some("debug".to_owned()), ..RawConfig::default() };
        let line = RawConfig { shards: Some(2), ..RawConfig::default() };
        let both = line.over(file);
        assert_eq!((both.shards, both.log.as_deref()), (Some(2), Some("debug")));
    }

    #[test]
    fn the_configuration_reference_is_up_to_date() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
        if std::env::var_os("CORELANE_WRITE_DOCS").is_some() {
            std::fs::write(&path, reference()).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == reference(), "docs/configuration.md is behind: CORELANE_WRITE_DOCS=1 writes it anew");
    }
}
