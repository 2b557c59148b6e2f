//! Options whose values have bounds: a value beyond them is refused before anybody is asked, in the units of whoever wrote it.

use std::fmt::Display;
use std::str::FromStr;

/// A parser of values from `least` to `most`, both included.
pub(crate) fn within<T>(least: T, most: T) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr<Err: Display> + PartialOrd + Display + Clone + Send + Sync + 'static,
{
    move |text| {
        let value: T = text.parse().map_err(|error: T::Err| error.to_string())?;
        check(&value, &least, &most).map(|()| value)
    }
}

/// Holds a value against its bounds.
pub(crate) fn check<T: PartialOrd + Display>(value: &T, least: &T, most: &T) -> Result<(), String> {
    if least <= value && value <= most { Ok(()) } else { Err(format!("{value} is not between {least} and {most}")) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use corelane_broker::quantity::{ByteSize, Span};

    use super::*;

    #[test]
    fn bounds_are_told_in_the_units_in_which_values_are_written() {
        let hours = |hours: u64| Span(Duration::from_secs(hours * 3600));
        let span = within(Span(Duration::from_millis(50)), hours(12));
        assert_eq!(span("12h"), Ok(hours(12)));
        assert_eq!(span("50ms"), Ok(Span(Duration::from_millis(50))));
        assert_eq!(span("13h"), Err("13h is not between 50ms and 12h".to_owned()));
        assert!(span("13").unwrap_err().contains("no unit"));
        let size = within(ByteSize(1 << 20), ByteSize(4 << 30));
        assert_eq!(size("1"), Err("1B is not between 1MiB and 4GiB".to_owned()));
    }
}
