//! Options whose values have bounds: a value beyond them is refused before anybody is asked, in the units of whoever wrote it.

use std::fmt::Display;
use std::str::FromStr;

use corelane_broker::quantity::{ByteSize, QuantityError, Span};
use corelane_model::limits::TOPIC_PARTITIONS_MAX;

/// A value that has bounds.
pub(crate) trait Bounded: FromStr + PartialOrd + Display + Clone + Send + Sync + 'static {
    /// Why a text is no such value, and which bounds one has.
    fn refusal(text: &str, error: Self::Err, bounds: &str) -> String;
}

macro_rules! whole_numbers {
    ($($number:ty),+) => {
        $(impl Bounded for $number {
            fn refusal(text: &str, _: std::num::ParseIntError, bounds: &str) -> String {
                // What is whole is only too small or too large: then the bounds alone say it.
                let is_whole = text.parse::<i128>().is_ok();
                if is_whole { format!("{text} is not {bounds}") } else { format!("{text:?} is not a whole number {bounds}") }
            }
        })+
    };
}
whole_numbers!(u8, u32, u64, usize);

macro_rules! quantities {
    ($($quantity:ty),+) => {
        $(impl Bounded for $quantity {
            fn refusal(_: &str, error: QuantityError, bounds: &str) -> String {
                format!("{error}, {bounds}")
            }
        })+
    };
}
quantities!(Span, ByteSize);

/// A parser of values from `least` to `most`, both included.
pub(crate) fn within<T: Bounded>(
    least: T,
    most: T,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| {
        let value: T = text.parse().map_err(|error| T::refusal(text, error, &format!("between {least} and {most}")))?;
        check(&value, &least, &most).map(|()| value)
    }
}

/// A parser of counts from `least` on.
pub(crate) fn at_least(least: u64) -> impl Fn(&str) -> Result<u64, String> + Clone + Send + Sync + 'static {
    move |text| {
        let bounds = || format!("of {least} or more");
        let count = text.parse().map_err(|_| format!("{text:?} is not a whole number {}", bounds()))?;
        if least <= count { Ok(count) } else { Err(format!("{count} is not a whole number {}", bounds())) }
    }
}

/// A parser of partitions' numbers.
pub(crate) fn partition_index() -> impl Fn(&str) -> Result<u32, String> + Clone + Send + Sync + 'static {
    within(0, TOPIC_PARTITIONS_MAX - 1)
}

/// Holds a value against its bounds.
pub(crate) fn check<T: PartialOrd + Display>(value: &T, least: &T, most: &T) -> Result<(), String> {
    if least <= value && value <= most { Ok(()) } else { Err(format!("{value} is not between {least} and {most}")) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn bounds_are_told_in_the_units_in_which_values_are_written() {
        let hours = |hours: u64| Span(Duration::from_secs(hours * 3600));
        let span = within(Span(Duration::from_millis(50)), hours(12));
        assert_eq!(span("12h"), Ok(hours(12)));
        assert_eq!(span("50ms"), Ok(Span(Duration::from_millis(50))));
        assert_eq!(span("13h"), Err("13h is not between 50ms and 12h".to_owned()));
        let unit = span("13").unwrap_err();
        assert!(unit.contains("no unit") && unit.ends_with("between 50ms and 12h"), "{unit}");
        let size = within(ByteSize(1 << 20), ByteSize(4 << 30));
        assert_eq!(size("1"), Err("1B is not between 1MiB and 4GiB".to_owned()));
    }

    #[test]
    fn a_number_that_its_type_cannot_hold_is_answered_with_the_bounds() {
        let number = within(0, 16_383_u32);
        assert_eq!(number("7"), Ok(7));
        for text in ["-1", "16384", "99999999999999999999"] {
            assert_eq!(number(text), Err(format!("{text} is not between 0 and 16383")));
        }
        for text in ["seven", "1.5", "", "1 "] {
            assert_eq!(number(text), Err(format!("{text:?} is not a whole number between 0 and 16383")));
        }
        let count = at_least(1);
        assert_eq!(count("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(count("0"), Err("0 is not a whole number of 1 or more".to_owned()));
        assert_eq!(count("-5"), Err("\"-5\" is not a whole number of 1 or more".to_owned()));
    }
}
