//! What a subscription means in today's catalog.

use std::collections::BTreeMap;

use corelane_catalog::{Catalog, Topic};
use corelane_group::{Subscription, TopicShape};
use corelane_model::limits::GROUP_PATTERN_BYTES_MAX;
use corelane_model::{CatalogVersion, ErrorCode};
use corelane_session::Refused;
use regex_automata::meta::Regex;
use regex_automata::util::syntax;
use regex_syntax::ast;

/// Patterns that are kept in compiled form; when there are more, all are compiled anew.
const PATTERNS_MAX: usize = 256;
/// Bytes of a compiled pattern, so that nested repetitions cannot take much.
const PATTERN_BYTES_MAX: usize = 256 << 10;
/// How deep a pattern's groups may nest.
const PATTERN_NEST_MAX: u32 = 32;

/// Compiled patterns and what they match.
#[derive(Debug, Default)]
pub(crate) struct Patterns {
    known: BTreeMap<String, Pattern>,
}

#[derive(Debug)]
struct Pattern {
    regex: Regex,
    /// What it matches in the catalog of that version.
    matches: Option<(CatalogVersion, Vec<TopicShape>)>,
}

fn shape(topic: &Topic) -> TopicShape {
    TopicShape { topic: topic.id, partitions: topic.partition_count() }
}

impl Patterns {
    /// Holds a pattern against the rules of regular expressions and the limits.
    pub(super) fn check(&mut self, pattern: &str) -> Result<(), Refused> {
        self.compiled(pattern).map(drop)
    }

    /// The topics of a subscription that exist, each once; never one of the broker's own. A pattern that does not compile
    /// matches nothing: it was checked when the member joined, and another version of the broker may know other rules.
    pub(super) fn resolve(&mut self, subscription: &Subscription, catalog: &Catalog) -> Vec<TopicShape> {
        let named = subscription.topics.iter().filter_map(|name| catalog.find(name.as_str()));
        let mut shapes: Vec<TopicShape> = named.filter(|topic| !topic.name.is_internal()).map(shape).collect();
        if let Some(pattern) = &subscription.pattern
            && let Ok(pattern) = self.compiled(pattern)
        {
            shapes.extend_from_slice(pattern.matches(catalog));
        }
        shapes.sort_unstable_by_key(|shape| shape.topic);
        shapes.dedup_by_key(|shape| shape.topic);
        shapes
    }

    fn compiled(&mut self, pattern: &str) -> Result<&mut Pattern, Refused> {
        if !self.known.contains_key(pattern) {
            let regex = compile(pattern)?;
            if PATTERNS_MAX <= self.known.len() {
                self.known.clear();
            }
            self.known.insert(pattern.to_owned(), Pattern { regex, matches: None });
        }
        Ok(self.known.get_mut(pattern).expect("it was just put there"))
    }
}

impl Pattern {
    fn matches(&mut self, catalog: &Catalog) -> &[TopicShape] {
        let version = catalog.version();
        if self.matches.as_ref().is_none_or(|(of, _)| *of != version) {
            let topics = catalog.topics().filter(|topic| !topic.name.is_internal());
            let found = topics.filter(|topic| self.regex.is_match(topic.name.as_str())).map(shape).collect();
            self.matches = Some((version, found));
        }
        &self.matches.as_ref().expect("it was just made").1
    }
}

fn refuse(text: String) -> Refused {
    Refused::new(ErrorCode::InvalidPattern, text)
}

/// A regular expression that matches whole names. Names are ASCII, so it knows no classes of Unicode.
fn compile(pattern: &str) -> Result<Regex, Refused> {
    if GROUP_PATTERN_BYTES_MAX < pattern.len() {
        let len = pattern.len();
        return Err(refuse(format!("pattern of {len} bytes is over the limit of {GROUP_PATTERN_BYTES_MAX} bytes")));
    }
    // It is parsed alone first, so that a position is one in the pattern and no bracket closes what stands around it.
    let parsed = ast::parse::ParserBuilder::new().nest_limit(PATTERN_NEST_MAX).build().parse(pattern);
    if let Err(error) = parsed {
        let at = error.span().start.offset;
        return Err(refuse(format!(
            "the pattern {pattern:?} is no regular expression, at byte {at}: {}",
            error.kind()
        )));
    }
    let config = Regex::config()
        .nfa_size_limit(Some(PATTERN_BYTES_MAX))
        .hybrid_cache_capacity(PATTERN_BYTES_MAX)
        .utf8_empty(false);
    let syntax = syntax::Config::new().unicode(false).utf8(false).nest_limit(PATTERN_NEST_MAX + 1);
    Regex::builder().configure(config).syntax(syntax).build(&format!("^(?:{pattern})$")).map_err(|error| {
        let why = match error.size_limit() {
            Some(limit) => format!("it takes more than {limit} bytes when it is compiled"),
            None => error.syntax_error().map_or_else(|| error.to_string(), |error| one_line(&error.to_string())),
        };
        refuse(format!("the pattern {pattern:?} cannot be used: {why}"))
    })
}

/// The last line of an error that draws the pattern.
fn one_line(text: &str) -> String {
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use corelane_model::{TopicName, TopicSettings};

    use super::*;

    fn catalog(names: &[&str]) -> Catalog {
        let mut catalog = Catalog::new(1);
        for name in names {
            let settings = TopicSettings::default();
            let planned = if name.starts_with("__") {
                catalog.plan_create_internal(name, 2, settings)
            } else {
                catalog.plan_create(name, 2, settings)
            };
            catalog.apply(&planned.expect("a good topic")).expect("it was planned here");
        }
        catalog
    }

    fn names(patterns: &mut Patterns, catalog: &Catalog, topics: &[&str], pattern: &str) -> Vec<String> {
        let topics = topics.iter().map(|name| TopicName::parse(name).expect("a good name")).collect();
        let subscription = Subscription { topics, pattern: Some(pattern.to_owned()) };
        let shapes = patterns.resolve(&subscription, catalog);
        shapes.iter().map(|shape| catalog.topic(shape.topic).expect("it is there").name.to_string()).collect()
    }

    #[test]
    fn a_pattern_matches_whole_names_and_nothing_of_the_broker_s() {
        let mut patterns = Patterns::default();
        let mut topics = catalog(&["match-1", "match-12", "rematch-1", "__groups", "chat"]);
        assert_eq!(
            names(&mut patterns, &topics, &["chat", "match-1"], "match-[0-9]+"),
            ["match-1", "match-12", "chat"]
        );
        assert_eq!(names(&mut patterns, &topics, &[], ".*").len(), 4);
        let change = topics.plan_create("match-3", 1, TopicSettings::default()).expect("a good topic");
        topics.apply(&change).expect("it was planned here");
        assert_eq!(names(&mut patterns, &topics, &[], "match-[0-9]+").len(), 3, "a new topic is picked up");
    }

    #[test]
    fn bad_patterns_are_refused_with_their_position() {
        let mut patterns = Patterns::default();
        for (pattern, text) in [
            ("match-[0-9", "at byte 6"),
            ("a)|(b", "at byte 1"),
            ("(a{1000}){1000}", "bytes when it is compiled"),
            ("\\p{Greek}", "cannot be used"),
        ] {
            let refused = patterns.check(pattern).expect_err(pattern);
            assert_eq!(refused.code, ErrorCode::InvalidPattern);
            assert!(refused.text.contains(text), "{} does not say {text:?}", refused.text);
        }
        assert!(patterns.check(&"a".repeat(GROUP_PATTERN_BYTES_MAX + 1)).is_err());
        assert!(patterns.check(&"(".repeat(40)).is_err());
    }
}
