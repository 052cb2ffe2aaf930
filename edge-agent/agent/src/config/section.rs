//! How a section of the configuration is declared, read and printed.
//!
//! [`section!`] makes a struct of a declaration: its doc comments become both the documentation and
//! the comments of the printed file, so that the two cannot drift apart.

use super::ConfigError;
use super::setting::Setting;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// Declares a section: `key: Type = default, allowed;` with a doc comment each, which ends in a
/// full stop. In `[[name]]` form the section may be repeated.
macro_rules! section {
    ($(#[doc = $doc:literal])+ [[$name:ident]] $Section:ident { $($keys:tt)+ }) => {
        section! {
            @ concat!("[[", stringify!($name), "]]"), true,
            $(#[doc = $doc])+ $name $Section { $($keys)+ }
        }

        impl $Section {
            /// One for each time that the section stands there; the default if it never does.
            fn read_all(root: &Root<'_>) -> Result<Vec<Self>, ConfigError> {
                let tables = root.tables(stringify!($name));
                if tables.is_empty() {
                    return Ok(vec![Self::default()]);
                }
                tables.iter().map(Self::from_table).collect()
            }
        }
    };
    ($(#[doc = $doc:literal])+ [$name:ident] $Section:ident { $($keys:tt)+ }) => {
        section! {
            @ concat!("[", stringify!($name), "]"), false,
            $(#[doc = $doc])+ $name $Section { $($keys)+ }
        }

        impl $Section {
            fn read(root: &Root<'_>) -> Result<Self, ConfigError> {
                match root.tables(stringify!($name)) {
                    [table, ..] => Self::from_table(table),
                    [] => Ok(Self::default()),
                }
            }
        }
    };
    (@ $header:expr, $repeats:literal, $(#[doc = $doc:literal])+ $name:ident $Section:ident {
        $($(#[doc = $key_doc:literal])+ $key:ident: $Type:ty = $default:expr, $allowed:expr;)+
    }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Section {
            $($(#[doc = $key_doc])+ pub $key: $Type,)+
        }

        impl Default for $Section {
            fn default() -> Self {
                Self { $($key: $default,)+ }
            }
        }

        impl $Section {
            const SECTION: Declared = Declared {
                name: stringify!($name),
                keys: &[$(stringify!($key)),+],
                repeats: $repeats,
            };

            fn from_table(table: &Table<'_>) -> Result<Self, ConfigError> {
                let default = Self::default();
                Ok(Self { $($key: table.get(stringify!($key), default.$key, &$allowed)?,)+ })
            }

            fn print(&self, text: &mut String) {
                text.push('\n');
                comment(text, &[$($doc),+], "");
                text.push_str($header);
                text.push('\n');
                $({
                    let remark = <$Type as Setting>::remark(&$allowed);
                    comment(text, &[$($key_doc),+], &remark);
                    text.push_str(&format!("{} = {}\n", stringify!($key), self.$key.printed()));
                })+
            }
        }
    };
}
pub(super) use section;

/// What is known of a section before anything is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Declared {
    pub name: &'static str,
    pub keys: &'static [&'static str],
    pub repeats: bool,
}

/// A configuration file larger than this is none.
const LARGEST_BYTES: u64 = 1 << 20;

/// A configuration file, not yet understood.
pub(super) struct File {
    pub path: PathBuf,
    pub text: String,
}

impl File {
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let not_text = |what: &str| ConfigError::NotText { path: path.into(), what: what.into() };
        let unreadable = |source| ConfigError::Unreadable { path: path.into(), source };
        if fs::metadata(path).map_err(unreadable)?.is_dir() {
            return Err(not_text("a directory"));
        }
        let mut bytes = Vec::new();
        let mut file = fs::File::open(path).map_err(unreadable)?.take(LARGEST_BYTES + 1);
        file.read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > LARGEST_BYTES {
            return Err(not_text("larger than 1 MiB"));
        }
        let text = String::from_utf8(bytes).map_err(|_| not_text("not UTF-8 text"))?;
        Ok(Self { path: path.into(), text })
    }

    /// The sections that stand in the file, after every name in it was found to be a known one.
    pub fn sections(&self, known: &[Declared]) -> Result<Root<'_>, ConfigError> {
        let table = DeTable::parse(&self.text).map_err(|error| ConfigError::Syntax {
            path: self.path.clone(),
            line: self.line(error.span().map_or(0, |span| span.start)),
            reason: error.message().replace('\n', " "),
        })?;
        let mut root = Root { file: self, tables: BTreeMap::new() };
        for (name, value) in table.into_inner() {
            let at = name.span().start;
            let name = name.into_inner();
            let Some(section) = known.iter().find(|section| section.name == name) else {
                return Err(self.unknown_section(&name, at, value.get_ref(), known));
            };
            let written = match value.into_inner() {
                DeValue::Table(table) if !section.repeats => vec![(at, table)],
                DeValue::Array(list) if section.repeats => list
                    .into_iter()
                    .filter_map(|entry| {
                        let at = entry.span().start;
                        match entry.into_inner() {
                            DeValue::Table(table) => Some((at, table)),
                            _ => None,
                        }
                    })
                    .collect(),
                _ => return Err(self.not_a_section(section, at)),
            };
            if written.is_empty() {
                return Err(self.not_a_section(section, at));
            }
            let tables = written
                .into_iter()
                .map(|(at, table)| self.table(*section, at, table, known))
                .collect::<Result<_, _>>()?;
            root.tables.insert(section.name, tables);
        }
        Ok(root)
    }

    fn table<'a>(
        &'a self,
        section: Declared,
        at: usize,
        table: DeTable<'a>,
        known: &[Declared],
    ) -> Result<Table<'a>, ConfigError> {
        let mut keys = BTreeMap::new();
        for (key, value) in table {
            let at = key.span().start;
            let Some(key) = section.keys.iter().find(|known| **known == *key.get_ref()) else {
                return Err(ConfigError::Unknown {
                    path: self.path.clone(),
                    line: self.line(at),
                    what: format!("key '{}' in [{}]", shown(key.get_ref()), section.name),
                    hint: hint(key.get_ref(), Some(&section), known),
                });
            };
            let span = value.span();
            let written = self.text.get(span).unwrap_or_default();
            keys.insert(*key, Written { at, written, value: value.into_inner() });
        }
        Ok(Table { file: self, section, at, keys })
    }

    fn unknown_section(
        &self,
        name: &str,
        at: usize,
        value: &DeValue<'_>,
        known: &[Declared],
    ) -> ConfigError {
        let is_section = matches!(value, DeValue::Table(_) | DeValue::Array(_));
        let (what, hint) = match is_section {
            true => (format!("section [{}]", shown(name)), {
                let names = known.iter().map(|section| section.name);
                match nearest(name, names.clone()) {
                    Some(nearest) => format!("did you mean [{nearest}]?"),
                    None => format!("there are {}", names.collect::<Vec<_>>().join(", ")),
                }
            }),
            false => {
                (format!("key '{}' outside of a section", shown(name)), hint(name, None, known))
            }
        };
        ConfigError::Unknown { path: self.path.clone(), line: self.line(at), what, hint }
    }

    fn not_a_section(&self, section: &Declared, at: usize) -> ConfigError {
        let header = match section.repeats {
            true => format!("a section that can be repeated: write [[{}]]", section.name),
            false => format!("one section: write [{}]", section.name),
        };
        ConfigError::Value {
            path: self.path.clone(),
            line: self.line(at),
            key: section.name.into(),
            found: "something else".into(),
            expected: header,
        }
    }

    fn line(&self, at: usize) -> usize {
        1 + self.text.bytes().take(at).filter(|&byte| byte == b'\n').count()
    }
}

/// The sections that stand in a file.
pub(super) struct Root<'a> {
    file: &'a File,
    tables: BTreeMap<&'static str, Vec<Table<'a>>>,
}

/// One section as it stands in a file.
pub(super) struct Table<'a> {
    file: &'a File,
    section: Declared,
    at: usize,
    keys: BTreeMap<&'static str, Written<'a>>,
}

struct Written<'a> {
    at: usize,
    /// As it stands in the file.
    written: &'a str,
    value: DeValue<'a>,
}

impl<'a> Root<'a> {
    pub fn tables(&self, section: &str) -> &[Table<'a>] {
        self.tables.get(section).map_or(&[], Vec::as_slice)
    }

    /// An error about a whole section.
    pub fn contradiction(&self, section: &'static str, rule: String) -> ConfigError {
        let line = self.tables(section).last().map_or(1, Table::line);
        ConfigError::Contradiction { path: self.file.path.clone(), line, section, rule }
    }
}

impl Table<'_> {
    pub fn has(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    /// The error that a key which must be given is not.
    pub fn absent(&self, key: &'static str, example: &str) -> ConfigError {
        ConfigError::Absent {
            path: self.file.path.clone(),
            line: self.line(),
            section: self.section.name,
            key,
            example: example.to_owned().printed(),
        }
    }

    /// The value of a key, or `default` if it is not given.
    pub fn get<T: Setting>(
        &self,
        key: &str,
        default: T,
        allowed: &T::Allowed,
    ) -> Result<T, ConfigError> {
        let Some(Written { at, written, value }) = self.keys.get(key) else { return Ok(default) };
        T::read(value, allowed).ok_or_else(|| ConfigError::Value {
            path: self.file.path.clone(),
            line: self.file.line(*at),
            key: format!("{}.{key}", self.section.name),
            found: shown(written),
            expected: T::expected(allowed),
        })
    }

    fn line(&self) -> usize {
        self.file.line(self.at)
    }
}

/// Appends the lines of a doc comment and a remark as TOML comments.
pub(super) fn comment(text: &mut String, lines: &[&str], remark: &str) {
    for line in lines {
        text.push_str(&format!("# {}\n", line.trim()));
    }
    let mut letters = remark.chars();
    if let Some(first) = letters.next() {
        text.push_str(&format!("# {}{}.\n", first.to_uppercase(), letters.as_str()));
    }
}

/// What may have been meant by an unknown key: one of the same section, or of another.
fn hint(key: &str, section: Option<&Declared>, known: &[Declared]) -> String {
    let here = section.map_or(&[][..], |section| section.keys);
    let others = || known.iter().filter(|other| section.is_none_or(|s| s.name != other.name));
    if let Some(owner) = others().find(|other| other.keys.contains(&key)) {
        return format!("it belongs in [{}]", owner.name);
    }
    if let Some(nearest) = nearest(key, here.iter().copied()) {
        return format!("did you mean '{nearest}'?");
    }
    let elsewhere = others().flat_map(|other| other.keys.iter().map(|key| (other.name, *key)));
    let close = nearest(key, elsewhere.clone().map(|(_, key)| key));
    match elsewhere.into_iter().find(|(_, key)| Some(*key) == close) {
        Some((owner, close)) => format!("did you mean '{close}' in [{owner}]?"),
        None if here.is_empty() => "every key belongs in a section, such as [device]".into(),
        None => format!("there are {}", here.join(", ")),
    }
}

/// The candidate most like `name`, if it is like it at all.
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Below this, what is left in common is chance ("x" and "fps").
    const LIKE: f64 = 0.55;
    candidates
        .map(|candidate| (strsim::normalized_damerau_levenshtein(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= LIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// `text` short enough for a sentence, on one line.
fn shown(text: &str) -> String {
    const LONGEST: usize = 40;
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    match text.chars().count() {
        ..=LONGEST => text.chars().map(clean).collect(),
        _ => text.chars().take(LONGEST).map(clean).chain(['…']).collect(),
    }
}
