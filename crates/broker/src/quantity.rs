//! Sizes and spans of time as people write them: `10GiB`, `1.5M`, `7d`, `1h30m`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes. Written as a number with an optional unit: `K`, `M`, `G`, `T` and their `KiB` forms count in
/// 1,024s, `kB`, `MB`, `GB` and `TB` in 1,000s. Letters may be of either case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A span of time. Written as numbers with units: `ms`, `s`, `m`, `h`, `d`, `w`, one after another as in `1h30m`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// Why a text is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// No digit where one belongs.
    #[error("{text:?} does not begin with a number; write {example}")]
    NoNumber {
        /// What was given.
        text: String,
        /// What would be right.
        example: &'static str,
    },
    /// A number without a unit where it needs one.
    #[error("{text:?} has no unit; write {example}")]
    NoUnit {
        /// What was given.
        text: String,
        /// What would be right.
        example: &'static str,
    },
    /// A unit that does not exist.
    #[error("{unit:?} in {text:?} is not a unit; there are {units}")]
    Unit {
        /// What was given.
        text: String,
        /// The part that is not a unit.
        unit: String,
        /// The units there are.
        units: &'static str,
    },
    /// Beyond 64 bits.
    #[error("{text:?} is too large")]
    TooLarge {
        /// What was given.
        text: String,
    },
}

const SIZE_EXAMPLE: &str = "a size such as 512MiB, 10GiB or 1048576";
const SIZE_UNITS: &str = "B, K or KiB, M or MiB, G or GiB, T or TiB, and kB, MB, GB, TB in thousands";
const SPAN_EXAMPLE: &str = "a time such as 250ms, 30s, 5m, 12h or 7d";
const SPAN_UNITS: &str = "ms, s, m, h, d, w";

impl FromStr for ByteSize {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (number, unit, rest) = split(text.trim(), text, SIZE_EXAMPLE)?;
        let scale: u64 = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(unit_error(text, unit, SIZE_UNITS)),
        };
        if !rest.is_empty() {
            return Err(unit_error(text, &format!("{unit}{rest}"), SIZE_UNITS));
        }
        number.scaled(scale).map(Self).ok_or_else(|| QuantityError::TooLarge { text: text.to_owned() })
    }
}

impl FromStr for Span {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let too_large = || QuantityError::TooLarge { text: text.to_owned() };
        let mut rest = text.trim();
        let mut nanos: u64 = 0;
        loop {
            let (number, unit, after) = split(rest, text, SPAN_EXAMPLE)?;
            let scale: u64 = match unit {
                "ms" => 1_000_000,
                "s" => 1_000_000_000,
                "m" | "min" => 60 * 1_000_000_000,
                "h" => 3_600 * 1_000_000_000,
                "d" => 86_400 * 1_000_000_000,
                "w" => 7 * 86_400 * 1_000_000_000,
                "" => return Err(QuantityError::NoUnit { text: text.to_owned(), example: SPAN_EXAMPLE }),
                _ => return Err(unit_error(text, unit, SPAN_UNITS)),
            };
            nanos = number.scaled(scale).and_then(|part| nanos.checked_add(part)).ok_or_else(too_large)?;
            if after.is_empty() {
                return Ok(Self(Duration::from_nanos(nanos)));
            }
            rest = after;
        }
    }
}

fn unit_error(text: &str, unit: &str, units: &'static str) -> QuantityError {
    QuantityError::Unit { text: text.to_owned(), unit: unit.to_owned(), units }
}

/// A decimal number as written, so that `1.5GiB` is exact.
struct Decimal {
    digits: u64,
    divisor: u64,
}

impl Decimal {
    fn scaled(&self, scale: u64) -> Option<u64> {
        u64::try_from(u128::from(self.digits) * u128::from(scale) / u128::from(self.divisor)).ok()
    }
}

/// Number, unit and what follows the unit.
fn split<'a>(rest: &'a str, whole: &str, example: &'static str) -> Result<(Decimal, &'a str, &'a str), QuantityError> {
    let is_number = |c: char| c.is_ascii_digit() || c == '.' || c == '_';
    let number_end = rest.find(|c| !is_number(c)).unwrap_or(rest.len());
    let (number, after) = rest.split_at(number_end);
    let digits: String = number.chars().filter(|&c| c != '_').collect();
    let no_number = || QuantityError::NoNumber { text: whole.to_owned(), example };
    let (integer, fraction) = digits.split_once('.').unwrap_or((&digits, ""));
    if integer.is_empty() || fraction.contains('.') || 9 < fraction.len() {
        return Err(no_number());
    }
    let divisor = 10_u64.pow(u32::try_from(fraction.len()).map_err(|_| no_number())?);
    let digits =
        format!("{integer}{fraction}").parse().map_err(|_| QuantityError::TooLarge { text: whole.to_owned() })?;
    let after = after.trim_start();
    let unit_end = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
    let (unit, after) = after.split_at(unit_end);
    Ok((Decimal { digits, divisor }, unit, after.trim_start()))
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        for (scale, unit) in UNITS {
            if scale <= self.0 {
                let whole = self.0 / scale;
                let tenths = (self.0 % scale) * 10 / scale;
                return if tenths == 0 { write!(f, "{whole}{unit}") } else { write!(f, "{whole}.{tenths}{unit}") };
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u128, &str); 5] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
        let mut millis = self.0.as_millis();
        if millis == 0 {
            return f.write_str("0ms");
        }
        for (scale, unit) in UNITS {
            if scale <= millis {
                write!(f, "{}{unit}", millis / scale)?;
                millis %= scale;
            }
        }
        Ok(())
    }
}

macro_rules! from_text_or_number {
    ($name:ident, $expecting:literal, $number:expr) => {
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<$name, E> {
                        let convert: fn(i64) -> Option<$name> = $number;
                        convert(number).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Signed(number), &self))
                    }
                }
                deserializer.deserialize_any(Visitor)
            }
        }
    };
}
from_text_or_number!(ByteSize, "a size such as \"512MiB\" or 1048576", |number| u64::try_from(number)
    .ok()
    .map(ByteSize));
from_text_or_number!(Span, "a time such as \"30s\" or \"7d\"", |_| None);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn size(text: &str) -> Result<u64, QuantityError> {
        text.parse::<ByteSize>().map(|size| size.0)
    }

    fn millis(text: &str) -> Result<u128, QuantityError> {
        text.parse::<Span>().map(|span| span.0.as_millis())
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(size("10GiB"), Ok(10 << 30));
        assert_eq!(size("10g"), Ok(10 << 30));
        assert_eq!(size("1.5 MiB"), Ok(3 << 19));
        assert_eq!(size("1_000kB"), Ok(1_000_000));
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("0"), Ok(0));
    }

    #[test]
    fn spans_are_read_as_people_write_them() {
        assert_eq!(millis("7d"), Ok(7 * 86_400_000));
        assert_eq!(millis("1h30m"), Ok(5_400_000));
        assert_eq!(millis("250ms"), Ok(250));
        assert_eq!(millis("1.5s"), Ok(1500));
    }

    #[test]
    fn wrong_quantities_say_what_would_be_right() {
        assert_eq!(
            size("ten").unwrap_err().to_string(),
            "\"ten\" does not begin with a number; write a size such as 512MiB, 10GiB or 1048576"
        );
        assert!(matches!(size("10 apples"), Err(QuantityError::Unit { unit, .. }) if unit == "apples"));
        assert!(matches!(size("10GiB5"), Err(QuantityError::Unit { .. })));
        assert!(matches!(size("-1"), Err(QuantityError::NoNumber { .. })));
        assert!(matches!(size("99999999TiB"), Err(QuantityError::TooLarge { .. })));
        assert!(matches!(millis("7"), Err(QuantityError::NoUnit { .. })));
        assert!(matches!(millis("7 days"), Err(QuantityError::Unit { .. })));
        assert!(matches!(millis(""), Err(QuantityError::NoNumber { .. })));
        assert!(matches!(millis("1d2"), Err(QuantityError::NoUnit { .. })));
    }

    proptest! {
        #[test]
        fn whole_spans_round_trip(millis in 0_u64..=10_000_000_000) {
            let span = Span(Duration::from_millis(millis));
            prop_assert_eq!(span.to_string().parse(), Ok(span));
        }

        #[test]
        fn a_size_reads_back_as_at_most_a_tenth_of_its_unit_less(bytes in 0_u64..=1 << 45) {
            let back = ByteSize(bytes).to_string().parse::<ByteSize>().unwrap().0;
            prop_assert!(back <= bytes && bytes - back <= bytes / 8);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,12}") {
            drop(text.parse::<ByteSize>());
            drop(text.parse::<Span>());
        }
    }
}
