//! Where a broker is, and why it is to be trusted.

use std::path::PathBuf;

/// Port of a broker when an address names none.
pub const PORT_DEFAULT: u16 = 7420;

/// A parsed address: `corelane://HOST[:PORT][?pin=sha256:HEX | ?ca=FILE][&token-file=FILE]`, or only `HOST[:PORT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Name or number of the host, IPv6 without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Why the broker is to be trusted.
    pub trust: Trust,
    /// File with the bearer token.
    pub token_file: Option<PathBuf>,
}

/// Why a broker is to be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It shows the development certificate whose fingerprint it wrote down for users of this machine: under
    /// `$XDG_RUNTIME_DIR/corelane/PORT`, else `~/.local/state/corelane/PORT`. For loopback addresses only.
    Development,
    /// It shows exactly the certificate with this SHA-256 digest of its DER bytes.
    Pin([u8; 32]),
    /// It shows a certificate for its host name by an authority from this PEM file.
    Authority(PathBuf),
}

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Another scheme.
    #[error("address {address:?} does not begin with corelane://")]
    Scheme {
        /// The address.
        address: String,
    },
    /// No host.
    #[error("address {address:?} names no host; an example is corelane://127.0.0.1:7420")]
    NoHost {
        /// The address.
        address: String,
    },
    /// The port is no number from 1 to 65535.
    #[error("{port:?} is no port; ports are numbers from 1 to 65535")]
    Port {
        /// What stands there.
        port: String,
    },
    /// Something after the host and port that is no parameter.
    #[error("{name:?} is no parameter of an address; there are pin, ca and token-file")]
    Parameter {
        /// What stands there.
        name: String,
    },
    /// A pin of another form.
    #[error("pin {pin:?} is not sha256: and 64 hexadecimal digits")]
    Pin {
        /// What stands there.
        pin: String,
    },
    /// Two reasons for trust.
    #[error("an address has a pin or a ca, not both")]
    TwoTrusts,
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// The first thing in it that does not make sense.
    pub fn parse(address: &str) -> Result<Self, AddressError> {
        let rest = match address.split_once("://") {
            Some(("corelane", rest)) => rest,
            Some(_) => return Err(AddressError::Scheme { address: address.to_owned() }),
            None => address,
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (host, port) = split_place(place.trim_end_matches('/'));
        if host.is_empty() {
            return Err(AddressError::NoHost { address: address.to_owned() });
        }
        let port = match port {
            None => PORT_DEFAULT,
            Some(text) => match text.parse::<u16>() {
                Ok(port) if port != 0 => port,
                Ok(_) | Err(_) => return Err(AddressError::Port { port: text.to_owned() }),
            },
        };
        let mut parsed = Self { host: host.to_owned(), port, trust: Trust::Development, token_file: None };
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let trust = match name {
                "pin" => Trust::Pin(parse_pin(value)?),
                "ca" if !value.is_empty() => Trust::Authority(value.into()),
                "token-file" if !value.is_empty() => {
                    parsed.token_file = Some(value.into());
                    continue;
                }
                _ => return Err(AddressError::Parameter { name: parameter.to_owned() }),
            };
            if parsed.trust != Trust::Development {
                return Err(AddressError::TwoTrusts);
            }
            parsed.trust = trust;
        }
        Ok(parsed)
    }

    /// Whether the host is this machine by its name or number.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn split_place(place: &str) -> (&str, Option<&str>) {
    if let Some(rest) = place.strip_prefix('[')
        && let Some((host, after)) = rest.split_once(']')
    {
        return (host, after.strip_prefix(':'));
    }
    match place.rsplit_once(':') {
        // An IPv6 number without brackets has no port.
        Some((host, _)) if host.contains(':') => (place, None),
        Some((host, port)) => (host, Some(port)),
        None => (place, None),
    }
}

/// Reads `sha256:` and 64 hexadecimal digits, with white space around it.
pub(crate) fn parse_pin(text: &str) -> Result<[u8; 32], AddressError> {
    let error = || AddressError::Pin { pin: text.trim().to_owned() };
    let digits = text.trim().strip_prefix("sha256:").ok_or_else(error)?;
    if digits.len() != 64 || !digits.is_ascii() {
        return Err(error());
    }
    let mut pin = [0; 32];
    for (byte, pair) in pin.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| error())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| error())?;
    }
    Ok(pin)
}

/// Writes a pin as it stands in addresses and files.
pub(crate) fn show_pin(pin: &[u8]) -> String {
    use std::fmt::Write as _;
    pin.iter().fold("sha256:".to_owned(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_short_and_long_forms() {
        let plain = Address { host: "127.0.0.1".into(), port: 7420, trust: Trust::Development, token_file: None };
        assert_eq!(Address::parse("corelane://127.0.0.1:7420"), Ok(plain.clone()));
        assert_eq!(Address::parse("127.0.0.1"), Ok(plain.clone()));
        assert!(plain.is_loopback());
        let pin = format!("sha256:{}", "0a".repeat(32));
        let long = Address::parse(&format!("corelane://games.example:9000/?pin={pin}&token-file=/run/token")).unwrap();
        assert_eq!(long.trust, Trust::Pin([10; 32]));
        assert_eq!((long.host.as_str(), long.port, long.is_loopback()), ("games.example", 9000, false));
        assert_eq!(long.token_file, Some("/run/token".into()));
        assert_eq!(show_pin(&[10; 32]), pin);
        let six = Address::parse("corelane://[::1]:7000").unwrap();
        assert_eq!((six.host.as_str(), six.port, six.to_string().as_str()), ("::1", 7000, "[::1]:7000"));
        assert!(Address::parse("::1").unwrap().is_loopback());
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(matches!(Address::parse("http://x"), Err(AddressError::Scheme { .. })));
        assert!(matches!(Address::parse("corelane://"), Err(AddressError::NoHost { .. })));
        assert_eq!(Address::parse("x:70000"), Err(AddressError::Port { port: "70000".into() }));
        assert!(matches!(Address::parse("x?pin=abc"), Err(AddressError::Pin { .. })));
        assert!(matches!(Address::parse(&format!("x?pin=sha256:{}", "ä".repeat(32))), Err(AddressError::Pin { .. })));
        assert!(matches!(Address::parse("x?speed=9"), Err(AddressError::Parameter { .. })));
        let both = format!("x?ca=a.pem&pin=sha256:{}", "00".repeat(32));
        assert_eq!(Address::parse(&both), Err(AddressError::TwoTrusts));
    }
}
